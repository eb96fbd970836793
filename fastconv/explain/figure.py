"""The figure of ``fastconv explain --png``: the way forward above, the error's way back below."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from fastconv.explain.flow import EQUATIONS, Flow
from fastconv.explain.numbers import short
from fastconv.nn.files import replacing

__all__ = ["FAINT", "INK", "Picture", "cells", "figure_of", "write"]

INK, FAINT, WIN, STOP = "#222222", "#9a9a9a", "#e07b00", "#7570b3"
PATCH, BACK = "#1b9e77", "#b2182b"
WIDTH, HEIGHT = 16.0, 8.6  # inches; all positions below are in inches
TOP, BOTTOM = 4.75, 0.85  # lower edges of the two rows of grids
SIDE = {"x": 2.75, "z1": 2.75, "a1": 2.75, "a2": 1.7, "w": 1.5}
LEFT = {"x": 0.35, "z1": 4.0, "a1": 7.6, "a2": 11.2, "out": 13.75}


class Picture(Figure):
    """A figure that a notebook shows, whatever matplotlib's backend there is."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()


def write(figure: Figure, path: Path) -> None:
    """Write a figure to `path`; its ending chooses the format (.png, .svg, .pdf)."""
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:] or "png", dpi=130)


def figure_of(flow: Flow, source: str) -> Picture:
    """Draw the flow.

    Parameters
    ----------
    flow : Flow
        What happened.
    source : str
        Where the image comes from.
    """
    figure = Picture(figsize=(WIDTH, HEIGHT), facecolor="white")
    _text(figure, 0.35, 8.3, f"One image through binary_cnn: {source}, y = {flow.y}", size=15)
    _text(figure, 0.35, 7.9, "forward", size=12, color=FAINT)
    _text(figure, 0.35, 4.3, "backward", size=12, color=BACK)
    legend = "orange frame: winner of its 2x2 window"
    if not flow.passed.all():
        legend += "; violet cross: its z1 was not positive, the error stops"
    _text(figure, WIDTH - 0.35, 8.3, legend, size=9.5, align="right", color=FAINT)
    _forward(figure, flow)
    _backward(figure, flow)
    return figure


def _forward(figure: Figure, flow: Flow) -> None:
    axes = _grid(figure, "x", TOP, flow.x, "x  (8x8)", "gray_r", digits=None)
    if flow.delta1.any():  # the patch behind the largest error
        axes.add_patch(_frame(*_largest(flow), 3, 3, PATCH, 2.6))
    small = _axes(figure, 3.17, TOP + 1.95, 0.72)
    cells(small, flow.parameters.w1, "RdBu_r", 1, size=6.5)
    small.set_title("w1", fontsize=9, color=INK, pad=3)
    _grid(figure, "z1", TOP, flow.z1, EQUATIONS["z1"], "RdBu_r", digits=2)
    axes = _grid(figure, "a1", TOP, flow.a1, EQUATIONS["a1"], "Greys", digits=2)
    _mark_windows(axes, flow, stopped=False)
    _grid(figure, "a2", TOP + 0.5, flow.a2, EQUATIONS["a2"], "Greys", digits=2)
    _arrow(figure, 3.25, 3.85, TOP + 1.37)
    _arrow(figure, 6.85, 7.45, TOP + 1.37)
    _arrow(figure, 10.45, 11.05, TOP + 1.37)
    _arrow(figure, 13.0, 13.6, TOP + 1.37)
    lines = [
        f"z3 = a2 @ w3 + b3\n    = {flow.z3:+.4f}",
        f"a3 = sigmoid(z3)\n    = {flow.a3:.4f}",
        f"L = {flow.loss:.4f}",
    ]
    for i, line in enumerate(lines):
        _text(figure, LEFT["out"], TOP + 2.0 - 0.62 * i, line, size=11.5, family="monospace")


def _backward(figure: Figure, flow: Flow) -> None:
    _grid(figure, "a2", BOTTOM + 0.5, flow.da2, EQUATIONS["da2"], "RdBu_r", digits=3)
    axes = _grid(figure, "a1", BOTTOM, flow.da1, _broken(EQUATIONS["da1"]), "RdBu_r", digits=2)
    _mark_windows(axes, flow, stopped=False)
    axes = _grid(figure, "z1", BOTTOM, flow.delta1, EQUATIONS["delta1"], "RdBu_r", digits=2)
    _mark_windows(axes, flow, stopped=True)
    if flow.delta1.any():
        axes.add_patch(_frame(*_largest(flow), 1, 1, PATCH, 2.6, inset=-0.06))
    side = 2.05
    axes = _axes(figure, LEFT["x"] + 0.35, BOTTOM + 0.35, side)
    cells(axes, flow.dw1, "RdBu_r", 3, size=11)
    axes.set_title(_broken(EQUATIONS["dw1"]), fontsize=10, color=INK, pad=6)
    _text(
        figure,
        LEFT["x"] + 0.35 + side / 2,
        BOTTOM + 0.12,
        f"db1 = sum of delta1 = {flow.db1:+.4f}",
        size=10.5,
        align="center",
    )
    _text(
        figure,
        LEFT["out"],
        BOTTOM + 1.37,
        f"dL/dz3 = a3 - y\n       = {flow.dz3:+.4f}",
        size=11.5,
        family="monospace",
    )
    for left, right in ((3.25, 3.85), (6.85, 7.45), (10.45, 11.05), (13.0, 13.6)):
        _arrow(figure, right, left, BOTTOM + 1.37, color=BACK)
    turn = FancyArrowPatch(
        ((LEFT["out"] + 0.7) / WIDTH, (TOP + 0.45) / HEIGHT),
        ((LEFT["out"] + 0.7) / WIDTH, (BOTTOM + 1.85) / HEIGHT),
        arrowstyle="-|>",
        mutation_scale=16,
        linewidth=1.8,
        color=BACK,
    )
    figure.add_artist(turn)
    _text(figure, 0.35, 0.32, _caption(flow), size=10.5)


def _largest(flow: Flow) -> tuple[int, int]:
    """Row and column of the largest error in delta1."""
    i, j = divmod(int(np.abs(flow.delta1).argmax()), flow.delta1.shape[1])
    return i, j


def _caption(flow: Flow) -> str:
    stopped = int((~flow.passed).sum())
    middle = f" {stopped} of the 9 errors stop at the ReLU." if stopped else ""
    return (
        "Each window's error goes to its winner alone; the other three cells get exactly zero."
        f"{middle} Each error left in delta1 multiplies the 3x3 patch of x that\nit came from "
        "(green: the largest error and its patch); the sum is dw1, the gradient of the kernel w1."
    )


def _broken(title: str) -> str:
    """Break a long equation after its comma or its equals sign."""
    return title.replace("winner, 0", "winner,\n0").replace(" = sum_ij", " =\nsum_ij")


def _axes(figure: Figure, left: float, bottom: float, side: float) -> Any:
    axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, side / WIDTH, side / HEIGHT))
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def _grid(
    figure: Figure,
    column: str,
    bottom: float,
    values: np.ndarray,
    title: str,
    colours: str,
    digits: int | None,
) -> Any:
    axes = _axes(figure, LEFT[column], bottom, SIDE[column])
    size = 9.5 if digits == 3 else 8.5
    cells(axes, values, colours, digits, size)
    axes.set_title(title, fontsize=10, color=INK, pad=6)
    return axes


def cells(
    axes: Any,
    values: np.ndarray,
    colours: str,
    digits: int | str | None,
    size: float,
    peak: float | None = None,
    aspect: str = "equal",
) -> None:
    """Colour the cells and write the numbers; exact zeros are a faint bare 0.

    `digits` are decimals, "short" for two significant digits, None for no numbers; `peak` is the
    number with the full colour.
    """
    peak = peak or float(np.abs(values).max()) or 1.0
    low = 0.0 if colours.lower().startswith("gr") else -peak
    # Beyond the peak, so that no cell is too dark to read.
    beyond = 1.0 if digits is None else 1.5
    axes.imshow(values, cmap=colours, vmin=beyond * low, vmax=beyond * peak, aspect=aspect)
    rows, columns = values.shape
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#d8d8d8", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    if digits is None:
        return
    for (i, j), v in np.ndenumerate(values):
        fixed = "0" if digits == "short" else f"{v:.{digits}f}"
        written = fixed if float(fixed) else short(float(v), 2)
        text, colour = (written, INK) if v else ("0", FAINT)
        axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)


def _mark_windows(axes: Any, flow: Flow, *, stopped: bool) -> None:
    """Draw the 2x2 windows and frame their winners; cross out those whose error stops."""
    rows, columns = flow.a2.shape
    for i, j in np.ndindex(rows, columns):
        axes.add_patch(_frame(2 * i, 2 * j, 2, 2, "#555555", 1.3))
    for index, passed in zip(flow.winners.ravel(), flow.passed.ravel(), strict=True):
        i, j = divmod(int(index), flow.a1.shape[1])
        axes.add_patch(_frame(i, j, 1, 1, WIN if passed or not stopped else STOP, 2.4, inset=0.08))
        if stopped and not passed:
            for ends in ((-0.3, 0.3), (0.3, -0.3)):
                axes.plot([j - 0.3, j + 0.3], [i + ends[0], i + ends[1]], color=STOP, linewidth=1.4)


def _frame(
    i: float, j: float, rows: int, columns: int, colour: str, width: float, inset: float = 0.0
) -> Rectangle:
    return Rectangle(
        (j - 0.5 + inset, i - 0.5 + inset),
        columns - 2 * inset,
        rows - 2 * inset,
        fill=False,
        edgecolor=colour,
        linewidth=width,
        zorder=3,
    )


def _arrow(figure: Figure, start: float, end: float, height: float, color: str = INK) -> None:
    figure.add_artist(
        FancyArrowPatch(
            (start / WIDTH, height / HEIGHT),
            (end / WIDTH, height / HEIGHT),
            arrowstyle="-|>",
            mutation_scale=16,
            linewidth=1.8,
            color=color,
        )
    )


def _text(
    figure: Figure,
    left: float,
    bottom: float,
    text: str,
    *,
    size: float,
    align: str = "left",
    color: str = INK,
    family: str | None = None,
) -> None:
    figure.text(
        left / WIDTH,
        bottom / HEIGHT,
        text,
        fontsize=size,
        ha=align,
        va="center",
        color=color,
        family=family,
    )
