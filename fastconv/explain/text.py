"""The words and grids of ``fastconv explain``."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fastconv.explain.flow import EQUATIONS, Flow
from fastconv.explain.numbers import decimals, places, short

__all__ = ["Style", "explanation", "plain", "wrapped"]

Style = Callable[[str, str], str]

MOST_DECIMALS = 5  # a grid of windows with more is wider than the page


def plain(text: str, style: str) -> str:
    """Leave text as it is."""
    return text


def explanation(flow: Flow, source: str, style: Style = plain) -> str:
    """The whole explanation as text.

    Parameters
    ----------
    flow : Flow
        What happened.
    source : str
        Where the image comes from, for the headline.
    style : callable
        ``style(text, name)`` decorates text; names are "head", "win", "stop", "dim". The
        default leaves it plain.

    Returns
    -------
    str
        Lines of at most 80 characters, without decoration counted.
    """
    steps = [*_forward(flow, style), *_backward(flow, style)]
    lines = [
        style("One image through binary_cnn, forward and backward", "head"),
        f"The image is {source}; its label is y = {flow.y}.",
        "",
        "  x 8x8 -> conv 3x3 -> z1 6x6 -> ReLU -> a1 6x6 -> max pool 2x2 -> a2 3x3",
        "        -> dense -> z3 -> sigmoid -> a3 -> loss L",
        "",
        "i, j are a row and a column of z1; u, v a row and a column of the kernel w1.",
        "Equation numbers are those of fastconv.reference. A bare 0 is exactly zero.",
    ]
    return "\n".join([*lines, *steps])


def _step(style: Style, title: str, *text: str) -> Iterator[str]:
    yield ""
    yield style(title, "head")
    for sentence in text:
        yield from wrapped(sentence)


def wrapped(sentence: str, width: int = 78, indent: int = 2) -> list[str]:
    """Lines of at most `width` characters, each behind `indent` blanks."""
    blanks = " " * indent
    return textwrap.wrap(
        sentence, width, initial_indent=blanks, subsequent_indent=blanks, break_on_hyphens=False
    )


def _forward(flow: Flow, style: Style) -> Iterator[str]:
    p = flow.parameters
    yield ""
    yield style("------ FORWARD: from the image to the loss " + "-" * 35, "head")
    yield from _step(style, "x: the image", "The brightness of each pixel.")
    yield from grid(flow.x, number(flow.x, 2), style)
    yield from _step(
        style,
        f"z1: {EQUATIONS['z1']}",
        "The kernel w1 lies on each 3x3 patch of the image in turn; the nine products and the "
        "bias add up to one number of z1.",
    )
    i, j = divmod(int(flow.z1.argmax()), flow.z1.shape[1])
    terms = [(float(flow.x[i + u, j + v]), float(p.w1[u, v])) for u, v in np.ndindex(3, 3)]
    largest = short(float(flow.z1[i, j]))
    products = " + ".join(
        f"{short(pixel, 2)}*({short(weight)})" for pixel, weight in terms if pixel
    )
    yield from _named_grid("w1", p.w1, signed(p.w1, 3), style, f"b1 = {p.b1:.4g}")
    yield from _named_grid("z1", flow.z1, signed(flow.z1, 3), style)
    yield from wrapped(
        f"The largest, z1[{i},{j}], is {products or '0'} + b1 = {largest} (pixels "
        "that are 0 left out)."
    )
    dead = int((flow.z1 <= 0).sum())
    yield from _step(
        style,
        f"a1: {EQUATIONS['a1']}",
        f"ReLU keeps what is positive; {dead} of the 36 numbers were not and are 0 now.",
    )
    yield from grid(flow.a1, number(flow.a1, 3), style)
    yield from _step(
        style,
        f"a2: {EQUATIONS['a2']}",
        "Of each window of four only the largest goes on: the [winner], in brackets (the first "
        "one where several are equal). The pool remembers where it was.",
    )
    yield from windows(flow.a1, flow, number(flow.a1, 3), style)
    yield from _named_grid("a2", flow.a2, number(flow.a2, 3), style)
    yield from _step(
        style,
        f"z3: {EQUATIONS['z3']}",
        "The nine winners, row by row, are weighted by w3 and summed: the evidence for label 1.",
    )
    yield from _named_grid("w3", p.w3.reshape(3, 3), signed(p.w3, 3), style, f"b3 = {p.b3:.4g}")
    yield f"  z3 = {short(flow.z3, 6)}"
    yield from _step(
        style, f"a3: {EQUATIONS['a3']}", "The sigmoid makes a probability of it: that y is 1."
    )
    yield f"  a3 = {short(flow.a3, 6)}"
    chosen = flow.a3 if flow.y == 1 else 1 - flow.a3
    yield from _step(
        style,
        f"loss: {EQUATIONS['loss']}",
        f"The label is {flow.y}, and the network gave it the probability {short(chosen, 4)}.",
    )
    yield f"  L = -log({short(chosen, 4)}) = {short(flow.loss, 6)}"


def _backward(flow: Flow, style: Style) -> Iterator[str]:
    yield ""
    yield style("------ BACKWARD: from the loss to the kernel " + "-" * 33, "head")
    direction = "too low" if flow.dz3 < 0 else "too high"
    yield from _step(
        style,
        f"dL/dz3: {EQUATIONS['dz3']}",
        f"Sigmoid and cross-entropy cancel to a difference: what the network said less what is "
        f"true. z3 was {direction}.",
    )
    yield f"  dL/dz3 = {short(flow.a3, 6)} - {flow.y} = {short(flow.dz3, 6)}"
    yield from _step(
        style,
        f"dL/da2: {EQUATIONS['da2']}",
        "Each winner is charged with the part of the error for which its weight in w3 made it "
        "responsible.",
    )
    yield from grid(flow.da2, signed(flow.da2, 4), style)
    yield from _step(
        style,
        f"dL/da1: {EQUATIONS['da1']}",
        "How does the error pass a max pool? All of a window's error goes to its "
        "[winner]. The other three did not touch the loss (a small change of one of them changes "
        "nothing), so theirs is exactly zero.",
    )
    yield from windows(flow.da1, flow, signed(flow.da1, 4), style)
    stopped = int((~flow.passed).sum())
    yield from _step(
        style,
        f"delta1: {EQUATIONS['delta1']}",
        "Where ReLU was flat (z1 <= 0) nothing passes. "
        + (
            f"{stopped} of the 9 winners had z1 <= 0, every number of their window being 0 after "
            "ReLU: their error stops here, marked (0)."
            if stopped
            else "All 9 winners had z1 > 0: every error passes."
        ),
    )
    yield from windows(flow.delta1, flow, signed(flow.delta1, 4), style)
    yield from _kernel_gradient(flow, style)


def _kernel_gradient(flow: Flow, style: Style) -> Iterator[str]:
    cells = [(int(i), int(j)) for i, j in np.argwhere(flow.delta1)]
    yield from _step(
        style,
        f"dw1: {EQUATIONS['dw1']}",
        "How does the error become a gradient of the kernel? The weight w1[u,v] "
        "met the pixel x[i+u, j+v] when it made z1[i,j]. So each delta1[i,j] that is not zero "
        "multiplies the very 3x3 patch of the image that made z1[i,j], and dw1 is the sum: "
        + (f"here of {len(cells)} patch{'es' * (len(cells) > 1)}." if cells else "here of none."),
    )
    for start in range(0, len(cells), 3):
        yield ""
        yield from _patches(flow, cells[start : start + 3])
    yield ""
    yield from _named_grid("dw1", flow.dw1, signed(flow.dw1, 4), style)
    error = np.abs(flow.dw1 - flow.dw1_numeric).max()
    yield from wrapped(
        "Check: moving one weight at a time by 0.000001 both ways and watching the loss gives "
        f"the same dw1; the largest difference is {error:.0e}."
    )
    yield from _step(
        style,
        f"db1: {EQUATIONS['db1']}",
        "The bias was added to every z1[i,j], so it gets the sum.",
    )
    yield f"  db1 = {short(flow.db1, 6)}"
    yield ""
    yield from wrapped(
        "A step of gradient descent now subtracts a little of dw1 and db1 from w1 and b1. (The "
        "dense layer's own gradients are dw3 = dL/dz3 * a2 and db3 = dL/dz3.)"
    )


def _patches(flow: Flow, cells: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Up to three terms of the sum side by side: delta1[i,j] times its patch of the image."""
    yield "  " + "   ".join(
        f"{f'delta1[{i},{j}] * x[{i}:{i + 3},{j}:{j + 3}]':24}" for i, j in cells
    )
    for u in range(3):
        terms = []
        for i, j in cells:
            factor = f"{places(float(flow.delta1[i, j]), 0, 4, True)} *" if u == 1 else ""
            row = " ".join(f"{places(float(v), 0, 2, False):>4}" for v in flow.x[i + u, j : j + 3])
            terms.append(f"{f'{factor:>9} {row}':24}")
        yield "  " + "   ".join(terms)


def number(values: np.ndarray, least: int) -> Callable[[float], str]:
    """Format numbers that are not negative, with the decimals that they need, as `signed` does."""
    return _form(values, least, "")


def signed(values: np.ndarray, least: int) -> Callable[[float], str]:
    """Format numbers with their signs; exactly zero is a bare 0.

    All have as many decimals, at least `least`, as the smallest one needs to keep two digits; where
    these would be too many for the page, all are written as -1.23e-7.
    """
    return _form(values, least, "+")


def _form(values: np.ndarray, least: int, sign: str) -> Callable[[float], str]:
    digits = decimals(values, least, most=12)
    large = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) >= 1e4
    kind = ".1e" if digits > MOST_DECIMALS or large else f".{digits}f"
    return lambda v: f"{v:{sign}{kind}}" if v else "0" + " " * (0 if kind == ".1e" else digits + 1)


def grid(
    values: np.ndarray, form: Callable[[float], str], style: Style, indent: int = 4
) -> Iterator[str]:
    """One line per row, columns aligned, exact zeros dim."""
    texts = [[form(float(v)) for v in row] for row in values]
    width = max(len(t) for row in texts for t in row)
    for row, numbers in zip(texts, values, strict=True):
        cells = zip(row, numbers, strict=True)
        line = "  ".join(style(t.rjust(width), "dim" if v == 0 else "") for t, v in cells)
        yield " " * indent + line.rstrip()


def _named_grid(
    name: str, values: np.ndarray, form: Callable[[float], str], style: Style, remark: str = ""
) -> Iterator[str]:
    """A grid with its name in front of the middle row and a remark behind it."""
    middle = (len(values) - 1) // 2
    for i, line in enumerate(grid(values, form, style, indent=2)):
        label, note = (f"{name} =", f"     {remark}" if remark else "") if i == middle else ("", "")
        yield f"  {label:>5}{line}{note}"


def windows(
    values: np.ndarray, flow: Flow, form: Callable[[float], str], style: Style
) -> Iterator[str]:
    """The 6x6 grid cut into its 2x2 pooling windows, winners in brackets, stopped ones in ()."""
    texts = [[form(float(v)) for v in row] for row in values]
    width = max(len(t) for row in texts for t in row)
    columns = values.shape[1]
    passed = dict(zip(flow.winners.ravel().tolist(), flow.passed.ravel().tolist(), strict=True))
    rule = "    " + "+".join(["", *["-" * (2 * width + 7)] * (columns // 2), ""])
    numbers = [f"j={j}".center(width + 2) for j in range(columns)]
    pairs = [f" {a} {b} " for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    yield "     " + style(" ".join(pairs).rstrip(), "dim")
    for i, row in enumerate(texts):
        if i % 2 == 0:
            yield rule
        cells = []
        for j, text in enumerate(row):
            index = i * columns + j
            if index not in passed:
                cells.append(style(f" {text:>{width}} ", "" if values[i, j] else "dim"))
            elif passed[index] or values is not flow.delta1:
                cells.append(style(_bracket(text, width, "[]"), "win"))
            else:
                cells.append(style(_bracket(text, width, "()"), "stop"))
        pairs = [f" {a} {b} " for a, b in zip(cells[::2], cells[1::2], strict=True)]
        yield style(f"i={i}", "dim") + " |" + "|".join(pairs) + "|"
    yield rule


def _bracket(text: str, width: int, pair: str) -> str:
    """'[0.573]', and '[0]' with its blanks outside, so that zeros stay in line."""
    bare = text.rstrip()
    blanks = " " * (len(text) - len(bare))
    return f"{pair[0]}{bare}{pair[1]}{blanks}".rjust(width + 2)
