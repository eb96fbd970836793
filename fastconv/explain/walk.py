"""The walk through any small network as text: both questions, number by number."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from fastconv.explain.equations import LEGENDS, Step, steps
from fastconv.explain.numbers import decimals, places, short, unit
from fastconv.explain.text import Style, plain, wrapped
from fastconv.explain.trace import Node, Trace, winners
from fastconv.nn import Conv

__all__ = ["walk"]

WIDTH = 80
ROWS = 14  # of a grid; the rest is in the arrays
CHANNELS = 4
TERMS = 24  # of a sum that is written out


def walk(trace: Trace, title: str, source: str, style: Style = plain) -> str:
    """The whole walk as text, with the grids of the first pattern.

    Parameters
    ----------
    trace : Trace
    title : str
        What the network is called.
    source : str
        Where the images come from.
    style : callable
        As in `fastconv.explain.text.explanation`.

    Returns
    -------
    str
        Lines of at most 80 characters, without decoration counted.
    """
    arrays = trace.arrays
    lines = [style(f"Forward and backward through {title}", "head")]
    lines += wrapped(f"The images: {source}.", indent=0)
    lines += ["", *_path(trace), ""]
    if title in LEGENDS:
        lines += [*wrapped(LEGENDS[title], indent=0), ""]
    lines += wrapped(
        "n is a pattern; h, w or i, j a row and a column; c a channel, f a filter; u, v a row and "
        "a column of a kernel. A bare 0 is exactly zero; 3e-4 is 0.0003. Shown are the numbers of "
        "pattern 0; the arrays have them all.",
        indent=0,
    )
    direction = None
    for step in steps(trace):
        if step.backward is not direction:
            direction = step.backward
            word = "BACKWARD: from the loss to the kernels" if direction else "FORWARD"
            lines += ["", style(f"------ {word} ".ljust(78, "-"), "head")]
        lines += ["", *(style(line, "head") for line in wrapped(step.equation, WIDTH, 0))]
        lines += wrapped(step.words) if step.words else []
        lines += _numbers(trace, step, style)
    lines += ["", *_patterns(trace)] if len(arrays["x"]) > 1 else []
    return "\n".join(lines)


def _path(trace: Trace) -> Iterator[str]:
    """The arrays of the forward pass with their shapes."""
    parts = [f"{n.name} {_size(trace.arrays[n.name].shape[1:])}" for n in trace.nodes]
    yield from wrapped(" -> ".join([*parts, trace.probability, "loss"]))


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numbers(trace: Trace, step: Step, style: Style) -> Iterator[str]:
    """What stands below an equation: grids, and what shows how a number of them arose."""
    value, node = trace.arrays[step.name], step.node
    n, parameters = node.number, node.layer._parameters if node.layer else {}
    conv = isinstance(node.layer, Conv)
    if not step.backward and "w" in parameters and step.name == node.name and conv:
        yield from grids(f"w{n}", trace.arrays[f"w{n}"], style)
        if "b" in parameters:
            yield f"  b{n} = {_row(trace.arrays[f'b{n}'])}"
    if np.ndim(value) == 0:
        yield f"  {step.name} = {short(float(value), 6)}"
        return
    full = f"{step.name}_full"
    if step.backward and full in trace.arrays:
        yield from _question_two(trace, step, style)
        return
    if step.name == f"dw{n}" and conv:
        yield from _patch(trace, node)
    yield from grids(step.name, value, style, winners(trace, step.name))
    if step.backward and node.source and step.name == node.source.gradient:
        yield from _slope(trace, step)
    if f"{step.name}_numeric" in trace.arrays:
        error = np.abs(value - trace.arrays[f"{step.name}_numeric"]).max()
        yield from wrapped(
            "Check: moving one weight at a time by 0.000001 both ways and watching the loss gives "
            f"the same; the largest difference is {short(float(error), 1)}."
        )


def _question_two(trace: Trace, step: Step, style: Style) -> Iterator[str]:
    """A convolution's error at its input: the kernel flipped, a cell as a sum, and col2im."""
    arrays, n, delta = trace.arrays, step.node.number, step.node.gradient
    value, dy, w = arrays[step.name], arrays[delta], arrays[f"w{n}"]
    KH, KW, _, F = w.shape
    yield ""
    yield from wrapped(
        f"As u and v run forwards over the window, h-u and w-v run backwards over {delta}: that is "
        f"a convolution of {delta} with the kernel flipped on both axes, in which {delta} has "
        f'{KH - 1} rows and {KW - 1} columns of zeros around it ("full"), so that it is as large '
        f"as {step.node.source.name if step.node.source else ''} again."
    )
    yield from grids(f"w{n}", w, style)
    yield from wrapped(f"w{n}_flipped[u,v,f,c] = w{n}[{KH - 1}-u, {KW - 1}-v, c, f]:")
    yield from grids(f"w{n}_flipped", arrays[f"w{n}_flipped"], style)
    yield from grids(step.name, value, style)
    h, w_, c = np.unravel_index(np.abs(value[0]).argmax(), value[0].shape)
    terms = [
        (float(dy[0, h - u, w_ - v, f]), float(w[u, v, c, f]), f"[{h - u},{w_ - v},{f}]", (u, v, f))
        for u, v, f in np.ndindex(KH, KW, F)
        if 0 <= h - u < dy.shape[1] and 0 <= w_ - v < dy.shape[2]
    ]
    yield from wrapped(
        f"Its largest cell, (h,w) = ({h},{w_}) of channel {c}, written out as a sum:"
    )
    yield f"    {step.name}[0,{h},{w_},{c}] ="
    for error, weight, place, (u, v, f) in terms[:TERMS]:
        product = f"{short(error):>9} * {short(weight):>8}"
        yield f"      + {product}     {delta}[0,{place[1:-1]}] * w{n}[{u},{v},{c},{f}]"
    if len(terms) > TERMS:
        yield f"      + {len(terms) - TERMS} more"
    total = sum(error * weight for error, weight, _, _ in terms)
    yield f"      = {short(total, 6)}"
    errors = [np.abs(value - arrays[f"{step.name}_{way}"]).max() for way in ("full", "col2im")]
    P, K = dy.shape[0] * dy.shape[1] * dy.shape[2], KH * KW * w.shape[2]
    yield ""
    yield from wrapped(
        f"The same without flipping: dcols{n} = {delta} @ w{n}.T is a [{P} x {F}] @ [{F} x {K}] "
        f"product whose row for pixel (i,j) holds what this pixel sends back to each of the {K} "
        "cells under its window; col2im adds every row to the window it came from. Both are equal: "
        f"col2im({delta} @ w{n}.T) differs from {step.name} by at most {short(errors[1], 1)}, the "
        f"full convolution with the flipped kernel by at most {short(errors[0], 1)}."
    )


def _patch(trace: Trace, node: Node) -> Iterator[str]:
    """The largest error of a delta and the patch of the input that it multiplies."""
    delta, link = trace.arrays[node.gradient], node.link
    if link is None or node.source is None or not delta[0].any():
        return
    i, j, f = np.unravel_index(np.abs(delta[0]).argmax(), delta[0].shape)
    top, left = i * link.stride[0] - link.low[0], j * link.stride[1] - link.low[1]
    yield from wrapped(
        f"The largest, {node.gradient}[0,{i},{j},{f}] = {short(float(delta[0, i, j, f]))}, "
        f"multiplies the {_size(link.window)} patch of {node.source.name} from ({top},{left}) on."
    )


def _slope(trace: Trace, step: Step) -> Iterator[str]:
    """One cell of a delta: the error times the slope."""
    source, name = step.node.source, f"df{step.node.number}"
    if source is None or name not in trace.arrays or not step.name.startswith("delta"):
        return
    delta, slope = trace.arrays[step.name], trace.arrays[name]
    error = trace.arrays[step.node.gradient]
    index = np.unravel_index(np.abs(delta[0]).argmax(), delta[0].shape)
    where = ",".join(map(str, (0, *index)))
    e, f, d = (short(float(a[(0, *index)])) for a in (error, slope, delta))
    yield f"  {step.name}[{where}] = {e} * {f} = {d}"


def _patterns(trace: Trace) -> Iterator[str]:
    """Label and probability of every pattern."""
    p = trace.arrays[trace.probability]
    yield f"  n  y  {trace.probability}"
    for n, label in enumerate(trace.arrays["y"]):
        yield f"{n:>3} {int(label):>2}  {_row(p[n])}"[:WIDTH]


def _row(values: np.ndarray) -> str:
    return " ".join(short(float(v)) for v in np.ravel(values))


# Grids --------------------------------------------------------------------------------------------


def grids(
    name: str, value: np.ndarray, style: Style, marked: np.ndarray | None = None
) -> Iterator[str]:
    """An array as grids: of pattern 0, a grid a channel; of a kernel, one per channel and filter.

    Grids stand side by side as far as they fit. All have one unit, a power of ten in the head.
    """
    kernel = name.lstrip("d").startswith("w") and value.ndim == 4
    blocks: list[list[str]] = []
    hidden = 0
    power = unit(value if kernel else value[:1])
    head = f"   in units of 1e{power}" if power else ""
    if value.ndim == 4 and kernel:
        for c, f in list(np.ndindex(value.shape[2:]))[: CHANNELS * 2]:
            blocks.append([f"{name}[:,:,{c},{f}]", *_grid(value[:, :, c, f], power, style, None)])
        hidden = value.shape[2] * value.shape[3] - len(blocks)
    elif value.ndim == 4:
        for c in range(min(value.shape[3], CHANNELS)):
            marks = None if marked is None else marked[0, :, :, c]
            blocks.append([f"{name}[0,:,:,{c}]", *_grid(value[0, :, :, c], power, style, marks)])
        hidden = value.shape[3] - len(blocks)
    else:
        rows = value if name.startswith("dw") else np.atleast_2d(value)[:1]
        blocks.append([name, *_grid(np.atleast_2d(rows), power, style, None)])
    yield from _side_by_side(blocks, head)
    if hidden > 0:
        yield f"    ... and {hidden} more"


def _side_by_side(blocks: list[list[str]], head: str) -> Iterator[str]:
    row: list[list[str]] = []
    for block in [*blocks, None]:
        wide = sum(_width(b) + 4 for b in row) + (_width(block) if block else WIDTH)
        if row and wide > WIDTH - 4 - len(head):
            for k in range(max(map(len, row))):
                cells = [b[k] if k < len(b) else "" for b in row]
                padded = [c + " " * (_width(b) - _seen(c)) for c, b in zip(cells, row, strict=True)]
                yield "    " + "    ".join(padded).rstrip() + (head if k == 0 else "")
            row = []
        if block:
            row.append(block)


def _width(block: list[str]) -> int:
    return max(map(_seen, block))


def _seen(text: str) -> int:
    """Characters that a terminal shows: those of colour codes are not."""
    return len(re.sub(r"\x1b\[[0-9;]*m", "", text))


def _grid(values: np.ndarray, power: int, style: Style, marks: np.ndarray | None) -> list[str]:
    """Rows of aligned numbers, clipped to what fits the page; zeros are dim, winners starred."""
    signed = bool((values < 0).any())
    digits = min(decimals(values / 10.0**power, 2), 3 if values.shape[1] <= 8 else 2)
    texts = [[places(float(v), power, digits, signed) for v in row] for row in values[:ROWS]]
    wide = max(len(t) for row in texts for t in row) + (marks is not None)
    fits = max((WIDTH - 4 + 1) // (wide + 1), 1)
    lines = []
    for i, row in enumerate(texts):
        cells = []
        for j, text in enumerate(row[:fits]):
            star = marks is not None and bool(marks[i, j])
            cell = f"{text}{'*' if star else ' ' * (marks is not None)}".rjust(wide)
            cells.append(style(cell, "win" if star else "dim" if text == "0" else ""))
        lines.append(" ".join(cells).rstrip())
    H, W = values.shape
    if H > ROWS or fits < W:
        lines.append(f"(of {H}x{W}: the first {min(H, ROWS)} rows, {min(W, fits)} columns)")
    return lines
