"""The numbers of images on their way through a small network and back, by the names of equations.

``z1`` is what the first layer with weights gives, ``a1`` behind its activation, ``s1`` behind its
subsampling; ``delta1`` is the gradient of the loss with respect to ``z1``, ``da1`` and ``ds1``
those with respect to ``a1`` and ``s1``; ``w1``, ``b1`` are the layer's parameters, ``dw1``,
``db1`` their gradients. Every array is computed by the layers, as training does, in evaluation
mode.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import functional
from fastconv.explain.links import ELEMENTWISE, Link, link
from fastconv.nn import (
    AvgPool,
    BinaryCrossEntropy,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    sigmoid,
)

__all__ = ["BINARY_NAMES", "Node", "Trace", "trace_model", "winners"]

# More numbers than anyone reads; pages and figures of them would be slow.
MOST_CELLS = 400_000
# Weights of a kernel whose gradient is also taken by moving one at a time.
MOST_MOVED = 400
STEP = 1e-6

# What `fastconv.reference` calls the arrays of `binary_cnn`, where that is not the rule above.
BINARY_NAMES = {"s1": "a2", "winners1": "winners", "z2": "z3", "delta2": "dz3", "a2": "a3"}


@dataclass(frozen=True)
class Node:
    """An array of the forward pass, and how it was made.

    Attributes
    ----------
    name : str
    gradient : str
        Name of the loss's gradient with respect to it.
    layer : Layer or None
        What made it; None of the image.
    source : Node or None
        What it was made of.
    order : int
        How many layers with weights there are up to here.
    number : str
        Behind the names of the layer's parameters: "1" of w1 and b1.
    link : Link or None
    flat : bool
        Whether a Flatten stands in front of the layer.
    winners : str, optional
        Of a max pool: the name of its argmax.
    """

    name: str
    gradient: str
    layer: Layer | None = None
    source: Node | None = None
    order: int = 0
    number: str = ""
    link: Link | None = None
    flat: bool = False
    winners: str | None = None


@dataclass(frozen=True)
class Trace:
    """One forward and one backward pass.

    Attributes
    ----------
    arrays : dict
        Arrays and numbers by name, in the order in which they arise.
    nodes : tuple of Node
        Those of the forward pass; the image is the first.
    probability : str
        Name of what sigmoid or softmax make of the last node.
    """

    arrays: dict[str, Any]
    nodes: tuple[Node, ...]
    probability: str


def trace_model(
    model: Sequential, x: np.ndarray, y: np.ndarray | None, names: dict[str, str] | None = None
) -> Trace:
    """Run images forward and backward and keep every array.

    Parameters
    ----------
    model : Sequential
        Not changed. Its output is (m, 1), for a sigmoid, or (m, classes), for a softmax.
    x : ndarray (m, H, W, C)
    y : ndarray (m,) of labels, or None
        None means what the network itself finds most probable.
    names : dict, optional
        Other names for some of the arrays.

    Raises
    ------
    ValueError, TypeError
        If the network is none that can be read, or the images or labels do not fit it.

    Examples
    --------
    >>> from fastconv.examples import binary_cnn
    >>> trace = trace_model(binary_cnn(dtype=np.float64), np.ones((1, 8, 8, 1)), np.array([1]))
    >>> trace.arrays["delta1"].shape, trace.arrays["dw1"].shape
    ((1, 6, 6, 1), (3, 3, 1, 1))
    """
    names = names or {}
    twin = copy.deepcopy(model, {id(model.ops): model.ops})  # a module cannot be copied
    chain = Sequential(*_flat(twin), ops=model.ops).eval()
    outputs = chain.activations(x)
    _readable(x, outputs)
    nodes = tuple(_nodes(chain.layers, [x, *outputs], names))
    loss, probabilities = _loss(outputs[-1])
    labels = _labels(y, probabilities)
    value = loss.forward(outputs[-1], labels)
    deltas = chain.deltas(loss.backward())  # of each layer's input

    last = nodes[-1]
    arrays: dict[str, Any] = {"x": x, "y": labels}
    made = {id(layer): output for layer, output in zip(chain.layers, outputs, strict=True)}
    for node in nodes[1:]:
        for name, path in _parameters(node).items():
            arrays[path] = getattr(node.layer, name).value.copy()
        arrays[node.name] = made[id(node.layer)]
        if node.winners and isinstance(node.layer, MaxPool):
            arrays[node.winners] = node.layer.argmax
    probability = names.get(f"a{last.order}", f"a{last.order}") if last.name[0] == "z" else "p"
    arrays |= {probability: probabilities, "loss": float(value), last.gradient: loss.backward()}
    errors = {id(layer): delta for layer, delta in zip(chain.layers, deltas, strict=True)}
    for node in nodes[:0:-1]:
        arrays |= _backward(chain, node, arrays, errors)
    arrays |= {
        f"d{_parameters(node)['w']}_numeric": _moved(chain, loss, labels, node, x)
        for node in nodes[1:]
        if isinstance(node.layer, Conv)
        and x.dtype == np.float64
        and node.layer.w.size <= MOST_MOVED
    }
    return Trace(arrays, nodes, probability)


def winners(trace: Trace, name: str) -> np.ndarray | None:
    """Which cells won a window of a max pool: bool, of the shape of the array called `name`.

    None unless it is the array that a max pool takes, or the gradient with respect to it.
    """
    for node in trace.nodes[1:]:
        if node.winners is None or node.source is None or trace.arrays[node.name].ndim != 4:
            continue
        if name in (node.source.name, node.source.gradient):
            m, H, W, C = trace.arrays[node.source.name].shape
            places = trace.arrays[node.winners].reshape(m, -1, C)
            won = np.zeros((m, H * W, C), bool)
            for index in np.argwhere(places >= 0):
                n, _, c = index
                won[n, places[tuple(index)], c] = True
            return won.reshape(m, H, W, C)
    return None


def _flat(model: Layer) -> Iterator[Layer]:
    """The layers of a chain, chains inside of it taken apart, and a fused ReLU as a layer."""
    for layer in model.layers if isinstance(model, Sequential) else (model,):
        if isinstance(layer, Sequential):
            yield from _flat(layer)
        elif isinstance(layer, (Conv, ConvTranspose)) and layer.activation == "relu":
            layer.activation = None
            yield from (layer, ReLU())
        else:
            yield layer


def _readable(x: np.ndarray, outputs: Sequence[np.ndarray]) -> None:
    cells = x.size + sum(output.size for output in outputs)
    if cells > MOST_CELLS:
        raise ValueError(
            f"model: it makes {cells} numbers of these images; more than {MOST_CELLS} are too many "
            "to read: give fewer or smaller images, or a smaller network"
        )


def _nodes(
    layers: Sequence[Layer], values: Sequence[np.ndarray], names: dict[str, str]
) -> Iterator[Node]:
    """The arrays of the forward pass; what only reshapes (Flatten) is part of the next."""
    node, order, flat, used = Node("x", "dx"), 0, False, {"x"}
    yield node
    for i, (layer, value) in enumerate(zip(layers, values, strict=False)):
        if isinstance(layer, Flatten) and i + 1 < len(layers):
            flat = True
            continue
        order += isinstance(layer, (Conv, ConvTranspose, Dense))
        wanted = f"{_letter(layer)}{order}"
        while wanted in used:
            wanted += "'"
        used.add(wanted)
        name = names.get(wanted, wanted)
        gradient = names.get(f"delta{order}", f"delta{order}") if wanted[0] == "z" else f"d{name}"
        winners = f"winners{order}" if isinstance(layer, MaxPool) else None
        winners = winners and names.get(winners, winners)
        node = Node(
            name=name,
            gradient=gradient,
            layer=layer,
            source=node,
            order=order,
            number="".join(c for c in name if c.isdigit()),
            link=link(layer, node.name, name, value.shape, winners),
            flat=flat,
            winners=winners,
        )
        flat = False
        yield node


def _letter(layer: Layer) -> str:
    if isinstance(layer, (Conv, ConvTranspose, Dense)):
        return "z"
    if isinstance(layer, ELEMENTWISE):
        return "a"
    return "s" if isinstance(layer, (MaxPool, AvgPool)) else f"{type(layer).__name__.lower()}"


def _parameters(node: Node) -> dict[str, str]:
    """Names of a node's parameters, such as {"w": "w1", "b": "b1"}."""
    return {name: f"{name}{node.number}" for name in node.layer._parameters} if node.layer else {}


def _loss(z: np.ndarray) -> tuple[BinaryCrossEntropy | SoftmaxCrossEntropy, np.ndarray]:
    """The loss that fits the outputs, and the probabilities it makes of them."""
    if z.ndim != 2:
        raise ValueError(
            f"model: its output must be (m, 1), for a sigmoid, or (m, classes), got {z.shape}"
        )
    if z.shape[1] == 1:
        return BinaryCrossEntropy(), sigmoid(z)
    return SoftmaxCrossEntropy(), SoftmaxCrossEntropy().predict(z)


def _labels(y: np.ndarray | None, probabilities: np.ndarray) -> np.ndarray:
    if y is not None:
        return y
    if probabilities.shape[1] == 1:
        return (probabilities[:, 0] >= 0.5).astype(np.int64)
    return probabilities.argmax(axis=1)


def _backward(
    chain: Sequential, node: Node, arrays: dict[str, Any], errors: dict[int, np.ndarray]
) -> dict[str, Any]:
    """What goes back through one node: the gradients of its parameters and of its source."""
    layer, source = node.layer, node.source
    if layer is None or source is None:
        return {}
    found: dict[str, Any] = {}
    for name, path in _parameters(node).items():
        found[f"d{path}"] = getattr(layer, name).grad.copy()
    if source.layer is None:
        return found
    if isinstance(layer, Conv) and arrays[source.name].ndim == 4:
        found |= _two_ways(chain, node, layer, arrays)
    if isinstance(layer, ELEMENTWISE):
        found[f"df{node.number}"] = layer.backward(np.ones_like(arrays[node.name]))
    error = errors[id(layer)]
    found[source.gradient] = error.reshape(arrays[source.name].shape)
    return found


def _two_ways(
    chain: Sequential, node: Node, layer: Conv, arrays: dict[str, Any]
) -> dict[str, np.ndarray]:
    """The gradient of a convolution's input as a full convolution, and as col2im(dy @ w.T)."""
    source = node.source
    if source is None or layer.groups != 1:
        return {}
    x, dy, w = arrays[source.name], arrays[node.gradient], layer.w.value
    F = w.shape[-1]
    cols = dy @ w.reshape(-1, F).T  # [P x F] @ [F x K] -> [P x K]
    back: np.ndarray = functional.col2im(cols, x.shape, layer.window, **layer.settings)
    found = {f"dcols{node.number}": cols, f"{source.gradient}_col2im": back}
    link = node.link
    plain = link is not None and link.stride == link.dilation == (1, 1) and link.low == (0, 0)
    sizes = zip(x.shape[1:3], w.shape[:2], dy.shape[1:3], strict=True)
    if plain and all(n - k + 1 == o for n, k, o in sizes):
        flipped = np.ascontiguousarray(w[::-1, ::-1].swapaxes(2, 3))  # (KH, KW, F, C)
        found[f"w{node.number}_flipped"] = flipped
        found[f"{source.gradient}_full"] = chain.ops.conv(dy, flipped, padding="full")
    return found


def _moved(
    chain: Sequential, loss: Any, labels: np.ndarray, node: Node, x: np.ndarray
) -> np.ndarray:
    """The gradient of a kernel from the loss alone: central differences, one weight at a time."""
    w = node.layer.w.value  # type: ignore[union-attr]
    gradient = np.empty_like(w)
    for index in np.ndindex(w.shape):
        kept, sides = w[index], []
        for step in (STEP, -STEP):
            w[index] = kept + step
            sides.append(loss.forward(chain.forward(x), labels))
        w[index] = kept
        gradient[index] = (sides[0] - sides[1]) / (2 * STEP)
    return gradient
