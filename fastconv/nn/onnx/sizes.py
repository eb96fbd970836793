"""The size of image that a network's weights are made for.

A dense layer behind Flatten takes ``H*W*C`` numbers of the last feature map, and any image that
gives as many would be accepted, 16x64 in place of 32x32. The file says which size is meant: that of
a square image. What the graph makes of a size is asked of ONNX's shape inference, so every layer
that has a form in ONNX is understood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastconv._extras import host

__all__ = ["fixed_shape"]

onnx = host("onnx", "onnx")

# Extents beyond this are not looked for: a network that gives the same for all of them has no size.
LARGEST = 2**14
MOST_AXES = 5


def fixed_shape(graph: Any, shape: Sequence[int | str]) -> list[int | str]:
    """`shape`, ``["m", "H", "W", C]``, with the numbers that the weights fix.

    Raises
    ------
    ValueError
        If no square image gives what they take.
    """
    size = _Sizes(graph, shape)
    first, last = 1, LARGEST
    for name, wanted in graph.fixed.items():
        first = max(first, size.least(name, wanted))
        last = min(last, size.least(name, wanted + 1) - 1)
    if first > last:
        taken = " and ".join(f"{n} numbers" for n in graph.fixed.values())
        raise ValueError(
            f"input_shape: give the shape of one image, such as (28, 20, 1): the weights behind "
            f"Flatten take {taken}, which no square image gives"
        )
    if last == LARGEST:  # whatever the size
        return list(shape)
    # Of sizes that differ in cells which no window sees, the one that halves most often.
    best = max(range(first, last + 1), key=lambda n: n & -n)
    return [shape[0], *[best] * (len(shape) - 2), shape[-1]]


class _Sizes:
    """What a square image makes of the values of a graph."""

    def __init__(self, graph: Any, shape: Sequence[int | str]) -> None:
        self._rank, self._channels = len(shape) - 2, int(shape[-1])
        self._element = onnx.helper.np_dtype_to_tensor_dtype(graph.dtype)
        # Weights go in by their shapes alone: inference would copy them each time.
        self._inputs, small = [], []
        for name, array in graph.constants.items():
            # paddings, shapes, scales of axes: inference reads them
            if array.data_type == onnx.TensorProto.INT64 or math.prod(array.dims) <= MOST_AXES:
                small.append(array)
            else:
                self._inputs.append(self._value(name, array.dims))
        self._made = onnx.helper.make_model(
            onnx.helper.make_graph(graph.nodes, "sizes", [], [], small),
            opset_imports=[onnx.helper.make_opsetid("", graph.opset)],
        )
        self._known: dict[int, dict[str, int]] = {}

    def least(self, name: str, elements: int) -> int:
        """The least extent that gives the value at least so many elements; LARGEST + 1 if none."""
        low, high = 0, 1
        while high < LARGEST and self._elements(high).get(name, 0) < elements:
            low, high = high, 2 * high
        if self._elements(high).get(name, 0) < elements:
            return LARGEST + 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._elements(middle).get(name, 0) < elements:
                low = middle
            else:
                high = middle
        return high

    def _elements(self, n: int) -> dict[str, int]:
        """Elements that an image of extent n gives each value; 0 where it is too small."""
        if n not in self._known:
            graph = self._made.graph
            del graph.input[:]
            x = self._value("x", [1, *[n] * self._rank, self._channels])
            graph.input.extend([x, *self._inputs])
            inferred = onnx.shape_inference.infer_shapes(self._made).graph.value_info
            dims = {
                value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
                for value in (x, *inferred)
            }
            self._known[n] = {
                k: math.prod(max(0, d) for d in v) if v else 0 for k, v in dims.items()
            }
        return self._known[n]

    def _value(self, name: str, shape: Sequence[int]) -> Any:
        return onnx.helper.make_tensor_value_info(name, self._element, shape)
