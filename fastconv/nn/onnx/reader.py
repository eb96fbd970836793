"""ONNX files as networks of `fastconv.nn`.

The path of a file: nodes -> every result says from which other it comes, by which layers -> joins
(`Add`, `Concat`) close the ways that lead back to one result -> the chain from the input to the
output is a description, as model files hold it -> layers, filled with the file's arrays.

ONNX's images are (m, C, H, W), ours (m, H, W, C): kernels are turned, the Transpose nodes between
both orders go away, and weights behind Flatten take their rows in our order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv._extras import host
from fastconv.nn.files import file_path
from fastconv.nn.onnx.base import Leaf, Node, State, Tree, number_of_axes
from fastconv.nn.onnx.nodes import FORMS, joined_channels
from fastconv.nn.onnx.patterns import fused
from fastconv.nn.registry import built

if TYPE_CHECKING:
    from fastconv.nn.container import Sequential

__all__ = ["from_onnx"]

# Nodes that compute the shape which a Reshape asks for.
OF_SIZES = ("Shape", "Gather", "Unsqueeze", "Concat", "Slice", "Cast")


def from_onnx(path: str | os.PathLike[str]) -> Sequential:
    """Read a network from an ONNX file, with its weights, to predict with it or to train it on.

    It reads chains with shortcuts and branches: what `Sequential.to_onnx` writes, and networks like
    LeNet, VGG, ResNet, DenseNet and U-Net from other frameworks, whose images are (m, C, H, W) in
    the file and (m, H, W, C) here. A softmax at the end is left out: `SoftmaxCrossEntropy.predict`
    makes the probabilities. Dropout is not in such files, and BatchNorm has its default momentum.

    Parameters
    ----------
    path : path

    Returns
    -------
    Sequential

    Raises
    ------
    ImportError
        If onnx is not installed: ``pip install "fastconv[onnx]"``.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no ONNX file, or one with a node that no layer stands for: the node is named.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Conv(1, 4, 3, rng=0), nn.ReLU(), nn.GlobalAvgPool())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "model.onnx")
    ...     model.to_onnx(file)
    ...     [type(layer).__name__ for layer in from_onnx(file).layers]
    ['Conv', 'ReLU', 'GlobalAvgPool']
    """
    path = file_path("path", path)
    proto = _loaded(path)
    try:
        own = proto.producer_name == "fastconv"
        tree = _Reader(proto.graph, own).read()
        return _made(tree, proto.graph.name if own and proto.graph.name != "fastconv" else None)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        cause = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: {cause}") from error


def _made(tree: list[Tree], name: str | None) -> Sequential:
    """The network, filled."""
    leaves = _leaves(tree)
    if len({id(leaf) for leaf in leaves}) != len(leaves):
        raise ValueError("its ways cross: only chains with shortcuts and branches are read")
    model: Any = built({**_chain(tree), "name": name})
    layers = [layer for _, layer in model.walk() if not layer.children()]
    for layer, leaf in zip(layers, leaves, strict=True):
        for attribute, array in leaf.arrays.items():
            setattr(layer, attribute, array)
    return model


def _loaded(path: Path) -> Any:
    onnx = host("onnx", "onnx")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file (an ONNX file is needed)")
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:  # protobuf, onnx and its C++ part have classes of their own
        cause = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path}: it is no whole ONNX file ({type(error).__name__}: {cause})"
        ) from error
    return inferred


def _described(tree: Tree) -> dict[str, Any]:
    if isinstance(tree, Leaf):
        return tree.description
    ways = [_chain(way) if way else None for way in tree.ways]
    if tree.op == "Concat":
        return {"type": "Concat", "branches": ways}
    return {"type": "Residual", "body": ways[0], "shortcut": ways[1]}


def _chain(trees: Sequence[Tree]) -> dict[str, Any]:
    return {"type": "Sequential", "name": None, "layers": [_described(tree) for tree in trees]}


def _leaves(trees: Sequence[Tree]) -> list[Leaf]:
    found: list[Leaf] = []
    for tree in trees:
        if isinstance(tree, Leaf):
            found.append(tree)
        else:
            found += [leaf for way in tree.ways for leaf in _leaves(way)]
    return found


@dataclass
class Join:
    """Ways that lead from one result to another, where they are added, or their channels joined."""

    op: str
    ways: list[list[Tree]]


class _Reader:
    """One graph: nodes become layers in the order in which they stand.

    `own` tells that `Sequential.to_onnx` wrote it, with images as (m, H, W, C).
    """

    def __init__(self, graph: Any, own: bool) -> None:
        onnx = host("onnx", "onnx")
        self.graph, self.own = graph, own
        self.constants = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.states: dict[str, State] = {}
        # The result before each, and the layers between the two.
        self.before: dict[str, tuple[str, list[Tree]]] = {}
        known = [*graph.value_info, *graph.output]
        self.ranks = {value.name: number_of_axes(value) for value in known}
        self.nodes = self._fused([*graph.input, *known])

    def _fused(self, known: list[Any]) -> list[Any]:
        """The nodes, without constants, and with one node for those that are one layer."""
        rest = []
        for proto in self.graph.node:
            if proto.op_type == "Constant":
                Node(proto, self.constants, self.ranks).fold(self.constants)
            else:
                rest.append(proto)
        shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in known
        }
        return fused(rest, [value.name for value in self.graph.output], self.constants, shapes)

    def read(self) -> list[Tree]:
        """The layers between the graph's input and its output."""
        inputs = [value for value in self.graph.input if value.name not in self.constants]
        if len(inputs) != 1 or len(self.graph.output) != 1:
            raise ValueError(
                f"a network of one input and one output is needed, it has {len(inputs)} and "
                f"{len(self.graph.output)}"
            )
        self.states[inputs[0].name] = self._input_state(inputs[0])
        for proto in self.nodes:
            self._take(proto)
        output = self.graph.output[0].name
        if output not in self.states:
            raise ValueError(f"output {output!r} does not depend on the input")
        self.states[output].check_end()
        names, layers = self._way(output)
        if names[-1] != inputs[0].name:
            raise ValueError(f"output {output!r} does not depend on the input")
        if not layers and not self.own:
            raise ValueError("it has no layer")
        return layers or [_identity()]

    def _input_state(self, value: Any) -> State:
        dtype = host("onnx", "onnx").helper.tensor_dtype_to_np_dtype(
            value.type.tensor_type.elem_type
        )
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"input {value.name!r}: float32 or float64 is needed, got {dtype}")
        rank = number_of_axes(value)
        if rank is None or rank < 2:
            raise ValueError(f"input {value.name!r}: its number of axes is not known")
        readers = [node for node in self.nodes if value.name in node.input]
        turned = [node.op_type == "Transpose" and _axes(node)[1] == rank - 1 for node in readers]
        last = self.own or (bool(turned) and all(turned))
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        channels = (dims[-1] if last or rank == 2 else dims[1]) or None
        return State(dtype, rank, "last" if last or rank == 2 else "first", channels)

    def _take(self, proto: Any) -> None:
        """One node: what it makes, from what, by which layers."""
        node = Node(proto, self.constants, self.ranks)
        if all(name in self.constants or not name for name in proto.input):
            node.fold(self.constants)
            return
        inputs = [name for name in proto.input if name in self.states]
        if node.op in ("Add", "Concat") and len(inputs) > 1 and len(inputs) == len(node.inputs):
            self._join(node, inputs)
            return
        form: Callable[[Node, State], tuple[list[Tree], State]] | None = FORMS.get(node.op)
        if form is None and node.op in OF_SIZES and _counts(node, self.ranks):
            return  # for a Reshape that flattens
        if form is None or len(inputs) != 1:
            raise node.error("no layer stands for it")
        if self.states[inputs[0]].ended and node.op != "Identity":
            raise node.error("something follows the softmax")
        if node.op == "Add":
            self._constant(node, inputs[0])
            return
        layers, state = form(node, self.states[inputs[0]])
        self.states[node.output], self.before[node.output] = state, (inputs[0], layers)

    def _constant(self, node: Node, source: str) -> None:
        """A bias that is added behind a product: it belongs to the layer before."""
        previous, layers = self.before.get(source, ("", []))
        state = self.states[source]
        leaf = layers[-1] if layers else None
        if node.op != "Add" or not isinstance(leaf, Leaf) or not leaf.takes_bias:
            raise node.error("no layer stands for it")
        self.before[node.output] = (previous, [*layers[:-1], leaf.with_bias(node, state)])
        self.states[node.output] = state

    def _join(self, node: Node, inputs: list[str]) -> None:
        states = [self.states[name] for name in inputs]
        if node.op == "Concat":
            state = joined_channels(node, states)
        else:
            state = states[0]
            if any(other != state for other in states):
                raise node.error("it adds results of different orders or channels")
        passed = [self._way(name)[0] for name in inputs]
        origin = next(name for name in passed[0] if all(name in others for others in passed))
        ways = [self._between(origin, name) for name in inputs]
        if node.op == "Concat":
            ways = [way or [_identity()] for way in ways]
        else:
            ways.sort(key=len, reverse=True)  # what passes the input on is the shortcut
            if not ways[0] and not self.own:
                raise node.error("it adds a result to itself")
            ways[0] = ways[0] or [_identity()]  # a body that does nothing, such as Dropout
        self.before[node.output], self.states[node.output] = (origin, [Join(node.op, ways)]), state

    def _way(self, name: str) -> tuple[list[str], list[Tree]]:
        """Results from `name` back to the input, and the layers from there on."""
        names, parts = [name], []
        while name in self.before:
            name, layers = self.before[name]
            names.append(name)
            parts.append(layers)
        return names, [layer for layers in reversed(parts) for layer in layers]

    def _between(self, origin: str, name: str) -> list[Tree]:
        parts = []
        while name != origin:
            name, layers = self.before[name]
            parts.append(layers)
        return [layer for layers in reversed(parts) for layer in layers]


def _identity() -> Leaf:
    return Leaf({"type": "Identity"})


def _axes(node: Any) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [0, 0])


def _counts(node: Node, ranks: dict[str, int | None]) -> bool:
    """Whether a node only works on sizes: its result is a number or a list of them."""
    rank = ranks.get(node.output)
    return rank is not None and rank <= 1
