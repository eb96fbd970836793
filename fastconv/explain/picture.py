"""The walk through any small network as a picture: forward above, the gradients below."""

from __future__ import annotations

import numpy as np

from fastconv.explain.figure import FAINT, INK, Picture, cells
from fastconv.explain.trace import Trace

__all__ = ["picture"]

CHANNELS = 3
CELL, GAP, TITLE = 0.16, 0.55, 0.45  # inches: of a cell, between columns, above a grid
LEAST, MOST = 0.55, 2.6  # sides of a grid
WRITTEN = 6  # columns of a grid whose cells have numbers


def picture(trace: Trace, title: str, source: str) -> Picture:
    """Draw the first pattern's grids, a column for each array, its gradient below it.

    Parameters
    ----------
    trace : Trace
    title : str
        What the network is called.
    source : str
        Where the images come from.
    """
    columns = [
        (node.name, node.gradient if node.layer else "", _grids(trace.arrays[node.name]))
        for node in trace.nodes
    ]
    errors = [_grids(trace.arrays[back]) if back else [] for _, back, _ in columns]
    sides = [_side(grids[0]) for _, _, grids in columns]
    height = max(
        sum(_high(grid, side) + TITLE for grid in grids)
        for (_, _, grids), side in zip(columns, sides, strict=True)
    )
    width = sum(sides) + GAP * (len(sides) + 1)
    tall = 2 * height + 1.6
    figure = Picture(figsize=(max(width, 8.0), tall), facecolor="white")
    size = (max(width, 8.0), tall)
    _write(figure, size, GAP, tall - 0.35, f"Forward and backward through {title}: {source}", 14)
    _write(figure, size, GAP, tall - 0.68, "forward", 11, FAINT)
    _write(figure, size, GAP, height + 0.55, "backward: the gradients of the loss", 11, "#b2182b")
    left = GAP
    for (name, back, grids), wrong, side in zip(columns, errors, sides, strict=True):
        _column(figure, size, left, tall - 0.8, side, name, grids)
        _column(figure, size, left, height + 0.42, side, back, wrong)
        left += side + GAP
    return figure


def _grids(value: np.ndarray) -> list[np.ndarray]:
    """The first pattern's grids; what a dense layer gives stands upright."""
    if value.ndim == 4:
        return [value[0, :, :, c] for c in range(min(value.shape[3], CHANNELS))]
    return [value[0].reshape(-1, 1)]


def _side(grid: np.ndarray) -> float:
    rows, columns = grid.shape
    written = 0.42 if max(rows, columns) <= WRITTEN else CELL
    wide = min(max(columns * written, LEAST), MOST)
    return min(wide, 6.0 * columns / rows) if rows > columns else wide


def _high(grid: np.ndarray, side: float) -> float:
    return side * grid.shape[0] / grid.shape[1] if grid.shape[1] > 1 else 0.3 * grid.shape[0]


def _column(
    figure: Picture,
    size: tuple[float, float],
    left: float,
    top: float,
    side: float,
    name: str,
    grids: list[np.ndarray],
) -> None:
    peak = max((float(np.abs(grid).max()) for grid in grids), default=0.0)
    for c, grid in enumerate(grids):
        high = _high(grid, side)
        top -= TITLE
        box = (left / size[0], (top - high) / size[1], side / size[0], high / size[1])
        axes = figure.add_axes(box)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{name}, channel {c}" if len(grids) > 1 else name, fontsize=9, color=INK)
        colours = "gray_r" if name == "x" else "RdBu_r"
        written = max(grid.shape) <= WRITTEN
        cells(axes, grid, colours, "short" if written else None, 7, peak, aspect="auto")
        top -= high


def _write(
    figure: Picture,
    size: tuple[float, float],
    left: float,
    bottom: float,
    text: str,
    points: float,
    color: str = INK,
) -> None:
    figure.text(left / size[0], bottom / size[1], text, fontsize=points, va="center", color=color)
