"""A network of `fastconv.nn` as an ONNX file.

Images go in and come out as fastconv has them, (m, H, W, C). Inside, the graph is ONNX's NCHW: one
Transpose before the first layer that needs it, and one where channels last is needed again, at
Flatten or at the end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastconv._extras import host
from fastconv._version import __version__
from fastconv.nn.base import Layer
from fastconv.nn.copying import runner
from fastconv.nn.files import replacing
from fastconv.nn.onnx.sizes import fixed_shape
from fastconv.nn.registry import onnx_form, taken_shape

if TYPE_CHECKING:
    from fastconv.nn.container import Sequential

__all__ = ["OUTPUTS", "to_model", "write"]

onnx = host("onnx", "onnx")

# Opset 17 and IR 8 are of 2022: ONNX Runtime 1.12 reads them, and so does everything since.
OPSET, IR = 17, 8
OUTPUTS = {"logits": None, "softmax": "Softmax", "sigmoid": "Sigmoid"}


class Value(NamedTuple):
    """A result in the graph.

    Attributes
    ----------
    name : str
    rank : int
        Spatial axes.
    first : bool
        Whether channels come before them.
    flat : str
        Of rows that hold an image's cells: the value, with its spatial axes, that Flatten took.
    """

    name: str
    rank: int
    first: bool = False
    flat: str = ""


class Graph:
    """Nodes and constants so far."""

    opset = OPSET

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.shape: list[int | str] | None = None  # of x, where it is given
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        # Values that weights fix the size of, by their names: elements of one image.
        self.fixed: dict[str, int] = {}

    def takes(self, x: Value, elements: int) -> None:
        """The weights of a layer take rows of so many elements."""
        if x.flat:
            self.fixed[x.flat] = elements

    def constant(self, name: str, value: np.ndarray, dtype: Any = None) -> str:
        """Add an array, of the network's dtype or another, under a name and return the name."""
        array = np.ascontiguousarray(value, dtype or self.dtype)
        self.constants[name] = onnx.numpy_helper.from_array(array, name)
        return name

    def node(self, op: str, inputs: list[str], path: str, **attributes: Any) -> str:
        """Add a node of one result and return the result's name."""
        name = f"{path}.{op}.{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def channels_first(self, x: Value, path: str) -> Value:
        """`x` as (m, C, H, W)."""
        if not x.rank or x.first:
            return x
        axes = range(1, x.rank + 1)
        name = self.node("Transpose", [x.name], path, perm=[0, x.rank + 1, *axes])
        return x._replace(name=name, first=True)

    def channels_last(self, x: Value, path: str) -> Value:
        """`x` as (m, H, W, C)."""
        if not x.first:
            return x
        axes = range(2, x.rank + 2)
        name = self.node("Transpose", [x.name], path, perm=[0, *axes, 1])
        return x._replace(name=name, first=False)

    def extents(self, x: Value, path: str) -> list[int]:
        """Height and width of `x`, of which the channels are first.

        Raises
        ------
        ValueError
            If the shape of the images is not given.
        """
        if self.shape is None:
            raise ValueError(
                f"input_shape: give the shape of one image, such as (28, 28, 1): layer {path} "
                "needs it"
            )
        element = onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        given = onnx.helper.make_tensor_value_info("x", element, self.shape)
        so_far = onnx.helper.make_graph(
            self.nodes, "so far", [given], [], list(self.constants.values())
        )
        opset = [onnx.helper.make_opsetid("", OPSET)]
        model = onnx.helper.make_model(so_far, opset_imports=opset)
        # data_prop: also behind a Reshape to the Shape of another result, as GroupNorm has it
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        found = next(v for v in (*inferred.value_info, given) if v.name == x.name)
        return [dim.dim_value for dim in found.type.tensor_type.shape.dim[2:]]

    def layer(self, layer: Layer, x: Value, path: str) -> Value:
        """Add a layer, and those inside it."""
        form = onnx_form(layer)
        if form is None:
            raise TypeError(f"layer {path}: {type(layer)!r} has no form in ONNX")
        return form(self, layer, x, path)


def to_model(
    model: Sequential,
    *,
    input_shape: tuple[int, ...] | None = None,
    output: str = "logits",
    dtype: Any = None,
) -> Any:
    """The ONNX model of a network, in evaluation mode.

    Parameters
    ----------
    model, input_shape, output, dtype
        As for :meth:`fastconv.nn.Sequential.to_onnx`.

    Returns
    -------
    onnx.ModelProto
        Checked, with input ``x`` and output ``y``.

    Raises
    ------
    ImportError, TypeError, ValueError
        As :meth:`fastconv.nn.Sequential.to_onnx`.

    Examples
    --------
    >>> from fastconv.examples import digits_cnn
    >>> [node.op_type for node in to_model(digits_cnn(seed=0)).graph.node][:3]
    ['Transpose', 'Conv', 'Relu']
    """
    if output not in OUTPUTS:
        raise ValueError(f"output: {output!r} must be one of {', '.join(map(repr, OUTPUTS))}")
    own = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    graph = Graph(np.dtype(own if dtype is None else dtype))
    element = onnx.helper.np_dtype_to_tensor_dtype(graph.dtype)
    shape = _input_shape(model, input_shape, own)
    graph.shape = None if input_shape is None else shape
    y = graph.layer(model, Value("x", max(0, len(shape) - 2)), model.name or "model")
    if input_shape is None and graph.fixed:
        shape = fixed_shape(graph, shape)
    last = graph.channels_last(y, "output").name
    if kind := OUTPUTS[output]:
        last = graph.node(kind, [last], "output", **({"axis": -1} if kind == "Softmax" else {}))
    graph.nodes.append(onnx.helper.make_node("Identity", [last], ["y"], name="output"))
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            model.name or "fastconv",
            [onnx.helper.make_tensor_value_info("x", element, shape)],
            [onnx.helper.make_tensor_value_info("y", element, None)],
            list(graph.constants.values()),
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="fastconv",
        producer_version=__version__,
    )
    made = onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
    onnx.checker.check_model(made, full_check=True)
    return made


def write(model: Sequential, path: str | os.PathLike[str], **options: Any) -> None:
    """Write ``to_model(model, **options)`` to a file, which is whole or not there."""
    text = to_model(model, **options).SerializeToString()
    with replacing(path) as file:
        file.write(text)


def _input_shape(
    model: Sequential, image: tuple[int, ...] | None, dtype: np.dtype
) -> list[int | str]:
    """Shape of ``x``: numbers where they are known, names where they are free."""
    if image is not None:
        runner(model)(np.zeros((0, *image), dtype))  # raises where it does not fit
        return ["m", *image]
    channels: int | str = "C"
    for _, layer in model.walk():
        shape = taken_shape(layer)
        if shape is None:
            continue
        if not shape:
            break
        *axes, last = shape
        channels = last if channels == "C" else channels
        if axes != [...]:
            return [*axes, channels]
    raise ValueError(
        "input_shape: give the shape of one image, such as (28, 28, 1): no convolution in front "
        "tells how many axes it has"
    )
