"""Several ONNX nodes that are one layer: each such pattern becomes one node for the reader.

`fused` looks at every node as a pattern's last one. It matches from there back to the input: where
all of it is there, a node that says the same takes the last one's place, and those that nothing
uses any more go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fastconv._extras import host
from fastconv.nn.onnx.padding import BEFORE_ALL
from fastconv.program.ops.adaptive import bounds

__all__ = ["fused"]

# (op, *inputs), the word of an input, or the number that a constant is.
Pattern: TypeAlias = "tuple[Any, ...] | str | float"

SILU = ("Mul", "x", ("Sigmoid", "x"))
TWICE = ("Add", ("Erf", ("Div", "x", math.sqrt(2))), 1.0)
GELUS = (("Mul", ("Mul", "x", TWICE), 0.5), ("Mul", ("Mul", "x", 0.5), TWICE))
PARTS = ("InstanceNormalization", ("Reshape", "x", "groups"), "ones", "zeros")
GROUP_NORM = ("Add", ("Mul", ("Reshape", PARTS, ("Shape", "x")), "scale"), "shift")
END = 2**31 - 1


def fused(
    nodes: Sequence[Any],
    outputs: Sequence[str],
    constants: dict[str, np.ndarray],
    shapes: dict[str, list[int]],
) -> list[Any]:
    """The nodes, with one for each pattern.

    Parameters
    ----------
    nodes : sequence of onnx.NodeProto
        In an order in which each follows what it needs.
    outputs : sequence of str
        The graph's results.
    constants : dict
        Arrays by their names.
    shapes : dict
        Shapes of results, as far as they are known; 0 where a size is free.
    """
    finder = _Finder({name: node for node in nodes for name in node.output}, constants, shapes)
    used = {name for node in nodes for name in node.input}
    needed, kept = set(outputs), []
    for node in reversed([finder.one(node) for node in nodes]):
        made = set(node.output)
        if made & used and not made & needed:
            continue  # a part of a pattern, and of nothing else
        kept.append(node)
        needed.update(node.input)
    return kept[::-1]


@dataclass
class _Finder:
    """The node that makes each result, constants, and shapes."""

    made: dict[str, Any]
    constants: dict[str, np.ndarray]
    shapes: dict[str, list[int]]

    def one(self, node: Any) -> Any:
        """The node itself, or that of the pattern which ends with it."""
        find = {
            "Mul": self._activation,
            "Add": self._group_norm,
            "Concat": lambda node: self._pad(node) or self._adaptive(node),
            "AveragePool": self._counted,
            "ReduceMean": self._adaptive,
            "ReduceMax": self._adaptive,
        }.get(node.op_type)
        found = find(node) if find else None
        if found is None:
            return node
        op, inputs, attributes = found
        make = host("onnx", "onnx").helper.make_node
        return make(op, inputs, list(node.output), name=node.name, **attributes)

    def _match(self, pattern: Pattern, name: str, found: dict[str, str]) -> dict[str, str] | None:
        """`found`, and what the pattern's words stand for, if it ends at a result."""
        if isinstance(pattern, str):
            return found | {pattern: name} if found.get(pattern, name) == name else None
        if isinstance(pattern, float):
            number = self.constants.get(name)
            same = number is not None and number.size == 1 and np.isclose(number, pattern, 1e-6)
            return found if same else None
        op, *parts = pattern
        node = self.made.get(name)
        if node is None or node.op_type != op or len(node.input) != len(parts):
            return None
        orders = [parts, parts[::-1]] if op in ("Add", "Mul") else [parts]
        for order in orders:
            now: dict[str, str] | None = found | {op: name}
            for part, source in zip(order, node.input, strict=True):
                now = None if now is None else self._match(part, source, now)
            if now is not None:
                return now
        return None

    def _activation(self, node: Any) -> Any:
        name = node.output[0]
        if found := self._match(SILU, name, {}):
            return "Swish", [found["x"]], {}
        found = next(filter(None, (self._match(gelu, name, {}) for gelu in GELUS)), None)
        return found and ("Gelu", [found["x"]], {})

    def _group_norm(self, node: Any) -> Any:
        found = self._match(GROUP_NORM, node.output[0], {})
        words = ("groups", "ones", "zeros", "scale", "shift")
        if not found or any(found[word] not in self.constants for word in words):
            return None
        groups, ones, zeros, scale, shift = (self.constants[found[word]] for word in words)
        shape, rank = groups.tolist(), len(self.shapes.get(node.output[0], ()))
        per_channel = (scale.size, *[1] * (rank - 2))
        if len(shape) != 3 or [shape[0], shape[2]] != [0, -1] or np.any(ones != 1) or zeros.any():
            return None
        if not scale.shape == shift.shape == per_channel:
            return None
        epsilon = _attribute(self.made[found["InstanceNormalization"]], "epsilon", 1e-5)
        inputs = [found["x"], found["scale"], found["shift"]]
        return "GroupNormalization", inputs, {"num_groups": shape[1], "epsilon": epsilon}

    def _slice(self, name: str, axis: int) -> tuple[str, tuple[int, int, int]] | None:
        """What is cut on an axis, and (first, end, step)."""
        node = self.made.get(name)
        if node is None or node.op_type != "Slice" or len(node.input) != 5:
            return None
        numbers = [self.constants.get(text) for text in node.input[1:]]
        if any(n is None or n.size != 1 for n in numbers):
            return None
        first, end, along, step = (int(n.item()) for n in numbers if n is not None)
        return (node.input[0], (first, end, step)) if along == axis else None

    def _pad(self, node: Any) -> Any:
        """Pieces of an image around it: one axis after the other, the last one first."""
        name, rank = node.output[0], len(self.shapes.get(node.output[0], ()))
        pads = [0] * (2 * rank)
        modes: set[str] = set()
        for axis in reversed(range(2, rank)):
            around = self._around(name, axis)
            if around and len(modes | {around[1]}) == 1:
                name, mode, pads[axis], pads[rank + axis] = around
                modes.add(mode)
        return ("Pad", [name], {"pads": pads, "mode": modes.pop()}) if modes else None

    def _around(self, name: str, axis: int) -> tuple[str, str, int, int] | None:
        """Of pieces around an image: the image, the mode, cells before it and behind it."""
        node = self.made.get(name)
        if node is None or node.op_type != "Concat" or _attribute(node, "axis", 0) != axis:
            return None
        for i, image in enumerate(node.input):
            pieces = [self._slice(part, axis) for part in node.input if part != image]
            cuts = [piece[1] for piece in pieces if piece and piece[0] == image]
            if i > 1 or len(cuts) != len(node.input) - 1 or not 0 <= len(cuts) - i <= 1:
                continue
            before, behind = (cuts[0] if i else None), (cuts[-1] if len(cuts) > i else None)
            for mode in ("symmetric", "wrap"):
                low, high = _low(mode, before), _high(mode, behind)
                if low is not None and high is not None:
                    return image, mode, low, high
        return None

    def _counted(self, node: Any) -> Any:
        """Means of partial windows that count zeros around the image, but not what is behind."""
        source = self.made.get(node.input[0])
        given = {name: _attribute(node, name, []) for name in ("kernel_shape", "strides", "pads")}
        window, n = given["kernel_shape"], len(given["kernel_shape"])
        if source is None or source.op_type != "Pad" or len(source.input) != 2:
            return None
        zeros = self.constants.get(source.input[1])
        if zeros is None or zeros.shape != (2 * n + 4,) or len(given["strides"]) != n:
            return None
        if (
            _attribute(source, "mode", b"constant") != b"constant"
            or zeros[[0, 1, n + 2, n + 3]].any()
        ):
            return None
        written = [int(z) for z in (*zeros[2 : n + 2], *zeros[n + 4 :])]
        rows = zip(window, given["strides"], written[n:], strict=True)
        overhang = [min(s - 1, k - 1 - done) for k, s, done in rows]
        if given["pads"] != [0] * n + overhang or _attribute(node, "count_include_pad", 0):
            return None
        if all(a <= k // 2 for a, k in zip(overhang, window, strict=True)):
            return None  # a layer can pad as much
        options = {"pads": written, "ceil_mode": 1, "count_include_pad": 1}
        return "AveragePool", [source.input[0]], given | options

    def _adaptive(self, node: Any) -> Any:
        """Windows of each axis, one after the other, the last one first."""
        name, rank = node.output[0], len(self.shapes.get(node.output[0], ()))
        size: list[int] = []
        ops: set[str] = set()
        for axis in reversed(range(2, rank)):
            windows = self._windows(name, axis)
            if windows is None:
                return None
            name, op, count = windows
            size.insert(0, count)
            ops.add(op)
        kinds = {"ReduceMean": "AdaptiveAvgPool", "ReduceMax": "AdaptiveMaxPool"}
        return (kinds[ops.pop()], [name], {"size": size}) if len(ops) == 1 else None

    def _windows(self, name: str, axis: int) -> tuple[str, str, int] | None:
        """Of reduced pieces of an axis: what they are of, by which node, and how many."""
        node = self.made.get(name)
        parts = [name]
        if node is not None and node.op_type == "Concat":
            if _attribute(node, "axis", 0) != axis:
                return None
            parts = list(node.input)
        sources, ops, cuts = set(), set(), []
        for part in parts:
            reduced = self.made.get(part)
            if reduced is None or not reduced.op_type.startswith("Reduce"):
                return None
            kept = _attribute(reduced, "keepdims", 1)
            cut = self._slice(reduced.input[0], axis)
            if cut is None or not kept or _attribute(reduced, "axes", []) != [axis]:
                return None
            sources.add(cut[0])
            ops.add(reduced.op_type)
            cuts.append(cut[1])
        if len(sources) != 1 or len(ops) != 1 or not ops <= {"ReduceMean", "ReduceMax"}:
            return None
        source = sources.pop()
        extent = (self.shapes.get(source) or [0] * (axis + 1))[axis]
        if cuts != [(first, end, 1) for first, end in bounds(extent, len(cuts))]:
            return None
        return source, ops.pop(), len(cuts)


def _low(mode: str, cut: tuple[int, int, int] | None) -> int | None:
    """Cells before an image, of the piece that they are; None if they are not of the mode."""
    if cut is None:
        return 0
    first, end, step = cut
    if mode == "symmetric":
        return first + 1 if first >= 0 and end <= BEFORE_ALL and step == -1 else None
    return -first if first < 0 and end >= END and step == 1 else None


def _high(mode: str, cut: tuple[int, int, int] | None) -> int | None:
    """Cells behind an image, as `_low`."""
    if cut is None:
        return 0
    first, end, step = cut
    if mode == "symmetric":
        return -end - 1 if first == -1 and end < -1 and step == -1 else None
    return end if first == 0 and 0 < end < END and step == 1 else None


def _attribute(node: Any, name: str, default: Any) -> Any:
    get = host("onnx", "onnx").helper.get_attribute_value
    return next((get(a) for a in node.attribute if a.name == name), default)
