"""What the forms of ONNX nodes take and return: nodes, states of results, layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from fastconv._extras import host
from fastconv.nn.registry import ENTRIES

__all__ = [
    "Form",
    "Leaf",
    "Node",
    "State",
    "Tree",
    "arrays",
    "images",
    "in_our_order",
    "number_of_axes",
]

Tree: TypeAlias = Any  # a Leaf, or the reader's Join


@dataclass(frozen=True)
class State:
    """What is known of a result.

    Attributes
    ----------
    dtype : numpy.dtype
    rank : int
        Axes in the file.
    order : {"first", "last"}
        Where the file has the channels; "last" of rows.
    channels : int, or None
    turned : int
        Of rows that Flatten made of images with channels first: how many channels those had;
        1 where the order is ours.
    pooled : bool
        Whether ours are rows already where the file's are images of one pixel.
    ended : bool
        Whether a softmax, which is left out, has made probabilities of it.
    """

    dtype: np.dtype[Any]
    rank: int
    order: str
    channels: int | None
    turned: int = 1
    pooled: bool = False
    ended: bool = False

    def check_end(self) -> None:
        """Raise where our order of the rows could not be that of the file."""
        if self.turned > 1:
            raise ValueError("it ends with images that are flattened channels first")


@dataclass
class Leaf:
    """A layer: its description, and its arrays by the attributes that hold them."""

    description: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def takes_bias(self) -> bool:
        """Whether it is a product without a bias."""
        return self.description.get("bias") is False

    def with_bias(self, node: Node, state: State) -> Leaf:
        """The layer with the constant of an Add as its bias."""
        b = next(node.constants[name] for name in node.inputs if name in node.constants)
        if b.size != state.channels or max(b.shape, default=1) != b.size:
            raise node.error(f"a constant of shape {b.shape} is no bias")
        return Leaf({**self.description, "bias": True}, {**self.arrays, "b": b.reshape(-1)})


class Node:
    """A node with its attributes and constants."""

    def __init__(
        self, proto: Any, constants: dict[str, np.ndarray], ranks: dict[str, int | None]
    ) -> None:
        onnx = host("onnx", "onnx")
        self.proto, self.op, self.constants, self.ranks = proto, proto.op_type, constants, ranks
        self.inputs, self.output = list(proto.input), proto.output[0]
        self.attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}

    def error(self, cause: str) -> ValueError:
        """A ValueError that names the node."""
        name = self.proto.name or self.output
        return ValueError(f"node {name!r} ({self.op}): {cause}")

    def constant(self, i: int) -> np.ndarray:
        """The i-th input, which must be a constant."""
        found = self.constant_or_none(i)
        if found is None:
            raise self.error(f"input {i} is needed, as a constant")
        return found

    def constant_or_none(self, i: int) -> np.ndarray | None:
        """The i-th input, a constant; None if there is none."""
        if i >= len(self.inputs) or not self.inputs[i]:
            return None
        if self.inputs[i] not in self.constants:
            raise self.error(f"input {i}, {self.inputs[i]!r}, is no constant")
        return self.constants[self.inputs[i]]

    def fold(self, constants: dict[str, np.ndarray]) -> None:
        """Compute what depends on constants alone."""
        if self.op == "Constant":
            value = next(iter(self.attributes.values()))
            if hasattr(value, "data_type"):
                value = host("onnx", "onnx").numpy_helper.to_array(value)
            constants[self.output] = np.asarray(value)
        elif self.op == "Identity":
            constants[self.output] = constants[self.inputs[0]]
        elif self.op == "Transpose":
            axes = self.attributes.get("perm")
            constants[self.output] = constants[self.inputs[0]].transpose(axes)
        elif self.op == "Reshape":
            shape = [int(n) for n in constants[self.inputs[1]]]
            constants[self.output] = constants[self.inputs[0]].reshape(shape)
        else:
            raise self.error("it computes with constants only, which is not understood")

    def number(self, name: str, default: float) -> float:
        """An attribute, which ONNX has as float32: the shortest decimal that is rounded to it."""
        return float(str(np.float32(self.attributes.get(name, default))))

    def layer(self, kind: str, **arguments: Any) -> Leaf:
        """A layer of a class by its name."""
        if kind not in ENTRIES:
            raise self.error(f"no layer stands for it: there is no {kind}")
        return Leaf({"type": kind, **arguments})


Form: TypeAlias = Callable[[Node, State], tuple[list[Tree], State]]


def number_of_axes(value: Any) -> int | None:
    """Axes of a value; None where the file does not say."""
    kind = value.type.tensor_type
    return len(kind.shape.dim) if kind.HasField("shape") else None


def images(node: Node, state: State) -> int:
    """Spatial axes of images with channels first."""
    if state.order != "first" or state.pooled:
        raise node.error("images with channels first are needed")
    return state.rank - 2


def arrays(state: State, **given: np.ndarray | None) -> dict[str, np.ndarray]:
    """Those that there are, of the network's dtype."""
    return {k: np.asarray(a, state.dtype) for k, a in given.items() if a is not None}


def in_our_order(node: Node, rows: np.ndarray, channels: int) -> np.ndarray:
    """Rows that count c, h, w, counted h, w, c."""
    if len(rows) % channels:
        raise node.error(f"{len(rows)} weights do not belong to {channels} channels")
    cells = rows.reshape(channels, -1, *rows.shape[1:])
    return cells.swapaxes(0, 1).reshape(rows.shape)
