"""What each array is: an equation and a sentence, in the order of the calculation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastconv.explain.flow import EQUATIONS
from fastconv.explain.trace import Node, Trace
from fastconv.nn import AvgPool, Conv, Dense, MaxPool, ReLU, Sigmoid, Tanh

__all__ = ["LEGENDS", "Step", "steps"]

FUNCTIONS = {ReLU: "max({}, 0)", Sigmoid: "1 / (1 + exp(-{}))", Tanh: "tanh({})"}
SLOPES = {ReLU: "({z} > 0)", Sigmoid: "{a} (1 - {a})", Tanh: "(1 - {a}^2)"}
# What the layers of the network of the second question are called there.
LEGENDS = {
    "two_conv": "The convolutions c1 and c2 give z1 and z2, the hidden layers h1 and h2 give z3 "
    "and z4, the output layer z5; delta1 is the delta of c1, delta2 that of c2, delta3 that of h1."
}
NAMES = {ReLU: "ReLU", Sigmoid: "sigmoid", Tanh: "tanh"}


@dataclass(frozen=True)
class Step:
    """One array of the explanation.

    Attributes
    ----------
    name : str
        Of the array.
    equation : str
        Begins with the name.
    words : str
    node : Node
        Of the forward pass; of a gradient, the node whose layer the error has just passed.
    backward : bool
    """

    name: str
    equation: str
    words: str
    node: Node
    backward: bool = False


def steps(trace: Trace, *, book: bool = False) -> list[Step]:
    """All steps of a pass; `book`: with the equations of `fastconv.reference` for `binary_cnn`."""
    found = [*_forward(trace), *_backward(trace)]
    if not book:
        return found
    titles = dict(EQUATIONS)
    return [
        Step(s.name, titles.get(s.name, s.equation), s.words, s.node, s.backward) for s in found
    ]


def _forward(trace: Trace) -> Iterator[Step]:
    image, last = trace.nodes[0], trace.nodes[-1]
    yield Step("x", "x = the image", "The brightness of each pixel.", image)
    for node in trace.nodes[1:]:
        yield Step(node.name, *_made(node), node)
    z, p = last.name, trace.probability
    if trace.arrays[p].shape[1] == 1:
        equation = f"{p} = 1 / (1 + exp(-{z}))"
        words = "The sigmoid makes a probability of it: that the label is 1."
        loss = f"loss = -y log({p}) - (1 - y) log(1 - {p})"
    else:
        equation = f"{p}[k] = exp({z}[k]) / sum_l exp({z}[l])"
        words = "The softmax makes probabilities of the outputs, one for each class."
        loss = f"loss = -log({p}[y])"
    yield Step(p, equation, words, last)
    mean = ", the mean of all patterns" if len(trace.arrays["x"]) > 1 else ""
    yield Step("loss", loss + mean, "The less probable the right label, the larger.", last)


def _made(node: Node) -> tuple[str, str]:
    """Equation and sentence of a forward step."""
    layer, out, n = node.layer, node.name, node.number
    x = node.source.name if node.source else ""
    if isinstance(layer, Conv):
        bias = f"b{n}[f] + " if layer.b is not None else ""
        where = f"{x}[{_cell('i', 'u', node, 0)}, {_cell('j', 'v', node, 1)}, c]"
        return (
            f"{out}[i,j,f] = {bias}sum_uvc {where} w{n}[u,v,c,f]",
            f"The kernel w{n} lies on each patch of {x} in turn; the products and the bias add up "
            f"to one number of {out}, for each filter f.",
        )
    if isinstance(layer, Dense):
        rows = f"flatten({x})" if node.flat else x
        bias = f" + b{n}" if layer.b is not None else ""
        return f"{out} = {rows} @ w{n}{bias}", "Every unit weighs all numbers before it."
    if type(layer) in FUNCTIONS:
        kind = type(layer)
        return (
            f"{out} = {FUNCTIONS[kind].format(x)}",  # type: ignore[index]
            f"The {NAMES[kind]}, cell by cell.",  # type: ignore[index]
        )
    if isinstance(layer, MaxPool):
        return (
            f"{out} = max of each {_window(node)} window of {x}",
            "Of each window only the largest goes on, the winner (*); the pool remembers where it "
            "was (the first one where several are equal).",
        )
    if isinstance(layer, AvgPool):
        return f"{out} = mean of each {_window(node)} window of {x}", "All cells count the same."
    return f"{out} = {layer!r} of {x}", ""


def _cell(i: str, u: str, node: Node, axis: int) -> str:
    """The input cell of tap u at pixel i: ``i*s + u*d - lo`` without what is 1 or 0."""
    link = node.link
    if link is None or link.kind != "window":
        return f"{i}+{u}"
    s, d, lo = link.stride[axis], link.dilation[axis], link.low[axis]
    return f"{i}{f'*{s}' * (s > 1)}+{u}{f'*{d}' * (d > 1)}{f'-{lo}' * (lo > 0)}"


def _window(node: Node) -> str:
    return "x".join(map(str, node.link.window)) if node.link else ""


def _backward(trace: Trace) -> Iterator[Step]:
    last, p = trace.nodes[-1], trace.probability
    m = len(trace.arrays["x"])
    share = f" / {m}" if m > 1 else ""
    target = "y" if trace.arrays[p].shape[1] == 1 else "t"
    difference = f"({p} - {target})" if share else f"{p} - {target}"
    words = "What the network said less what is true."
    if target == "t":
        words += " t is 1 at the label and 0 elsewhere."
    if m > 1:
        words += f" The loss is the mean of {m} patterns, so each has that share."
    yield Step(last.gradient, f"{last.gradient} = {difference}{share}", words, last, True)
    for node in trace.nodes[:0:-1]:
        yield from _parameters(trace, node)
        if node.source is not None and node.source.layer is not None:
            yield Step(node.source.gradient, *_returned(trace, node), node, True)


def _parameters(trace: Trace, node: Node) -> Iterator[Step]:
    """Gradients of the node's parameters."""
    layer, n, delta = node.layer, node.number, node.gradient
    x = node.source.name if node.source else ""
    many = "n" if len(trace.arrays["x"]) > 1 else ""
    first = "n," if many else ""
    if isinstance(layer, Conv):
        where = f"{x}[{first}{_cell('i', 'u', node, 0)}, {_cell('j', 'v', node, 1)}, c]"
        yield Step(
            f"dw{n}",
            f"dw{n}[u,v,c,f] = sum_{many}ij {delta}[{first}i,j,f] {where}",
            f"The weight w{n}[u,v,c,f] met this cell of {x} when it made {node.name}[i,j,f]: each "
            f"error multiplies the very patch that made its number, and dw{n} is the sum.",
            node,
            True,
        )
    elif isinstance(layer, Dense):
        rows = f"flatten({x})" if node.flat else x
        yield Step(
            f"dw{n}",
            f"dw{n} = {rows}.T @ {delta}",
            "Each weight: what came in, times the error of its unit.",
            node,
            True,
        )
    if f"db{n}" in trace.arrays and layer is not None and "b" in layer._parameters:
        cells = f"sum_{many}ij {delta}[{first}i,j,f]" if isinstance(layer, Conv) else ""
        rows = f"sum_n {delta}[n]" if many else delta
        name = f"db{n}[f]" if cells else f"db{n}"
        words = "The bias was added everywhere, so it gets the sum."
        yield Step(f"db{n}", f"{name} = {cells or rows}", words, node, True)


def _returned(trace: Trace, node: Node) -> tuple[str, str]:
    """Equation and sentence of the error that comes out of a layer at its input."""
    layer, n, dy = node.layer, node.number, node.gradient
    source = node.source
    name = source.gradient if source else ""
    x = source.name if source else ""
    if isinstance(layer, Conv):
        if f"{name}_full" in trace.arrays:
            equation = f"{name}[h,w,c] = sum_uvf {dy}[h-u, w-v, f] w{n}[u,v,c,f]"
        else:
            equation = f"{name} = col2im({dy} @ w{n}.T)"
        return equation, (
            f"Given the delta of this layer and its weights, what is the error of its input? Cell "
            f"(h,w) of {x} met the weight w{n}[u,v] when it made pixel (h-u, w-v), so it gets that "
            "pixel's error by that weight, and the sum over all taps and filters."
            if f"{name}_full" in trace.arrays
            else f"Each cell of {x} gets the errors of all pixels that it had a part in, each by "
            "the weight that it met."
        )
    if isinstance(layer, Dense):
        shaped = f", in the shape of {x}" if node.flat else ""
        words = "Each number before is charged by the weights through which it was heard."
        return f"{name} = {dy} @ w{n}.T{shaped}", words
    if type(layer) in SLOPES:
        slope = SLOPES[type(layer)].format(z=x, a=node.name)  # type: ignore[index]
        words = f"Times the slope f'({x}) of the {NAMES[type(layer)]}"  # type: ignore[index]
        words += ": where it was flat, nothing passes." if isinstance(layer, ReLU) else "."
        return f"{name} = d{node.name} * f'({x}),  f' = {slope}", words
    if isinstance(layer, MaxPool):
        return (
            f"{name} = upsample({dy}): to each window's winner, 0 elsewhere",
            "All of a window's error goes to its winner (*). The others did not touch the loss (a "
            "small change of one of them changes nothing), so theirs is exactly zero.",
        )
    if isinstance(layer, AvgPool) and node.link is not None:
        cells = node.link.window[0] * node.link.window[1]
        each = "a quarter" if cells == 4 else f"1/{cells}"
        words = f"Each cell had the weight 1/{cells} in the mean, so it gets that share."
        return f"{name} = upsample({dy}): {each} to each cell of the window", words
    return f"{name} = what {layer!r} gives back of {dy}", ""
