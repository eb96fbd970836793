"""A chart of the ratios: one panel per product, one line per row, one mark per thread count."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comparison.report import geometric_mean
from comparison.rows import Row
from fastconv.nn.files import replacing

# Okabe and Ito's colours, which the colour-blind tell apart too, and a marker each for print.
STYLES = (
    ("#0072b2", "o"),
    ("#d55e00", "D"),
    ("#009e73", "s"),
    ("#cc79a7", "^"),
)
TITLES = {
    "forward": "forward",
    "kernel": "kernel gradient",
    "input": "input gradient",
}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write the chart of fastconv against PyTorch.

    Parameters
    ----------
    path : Path
        A PNG file.
    rows : sequence of Row
        Those without a ratio are left out.

    Raises
    ------
    ValueError
        If no row has a ratio.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row.ratio() is not None]
    if not rows:
        raise ValueError("there is nothing to draw: no row was compared with PyTorch")
    products = list(dict.fromkeys(row.product for row in rows))
    places, ticks, heads = _places(rows)
    height = 1.5 + 0.2 * (max(places.values()) + 1)
    figure, axes = plt.subplots(
        1,
        len(products),
        sharey=True,
        sharex=True,
        squeeze=False,
        figsize=(3.4 + 2.9 * len(products), height),
        layout="constrained",
    )
    for panel, product in zip(axes[0], products, strict=True):
        _panel(panel, [row for row in rows if row.product == product], places, rows)
        panel.set_title(TITLES.get(product, product.replace("_", " ")), fontweight="bold")
        panel.tick_params(axis="y", length=0)
        for head in heads.values():
            panel.axhline(head, color="0.85", linewidth=0.8, zorder=0)
    first = axes[0][0]
    first.set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    first.set_ylim(max(places.values()) + 0.8, -0.8)
    for table, head in heads.items():
        first.text(
            -0.02, head, table, transform=first.get_yaxis_transform(), ha="right", va="center",
            fontsize=8, fontweight="bold",
        )  # fmt: skip
    handles, labels = _legend(axes[0], rows)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle("PyTorch's time / fastconv's time  (right of 1: fastconv is faster)")
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:] or "png", dpi=120)
    plt.close(figure)


def _places(
    rows: Sequence[Row],
) -> tuple[dict[tuple[str, str], float], dict[float, str], dict[str, float]]:
    """Where each row goes, the labels, and where each table's heading goes."""
    places: dict[tuple[str, str], float] = {}
    ticks: dict[float, str] = {}
    heads: dict[str, float] = {}
    place = 0.0
    for table, group in itertools.groupby(sorted(rows, key=_order(rows)), lambda r: r.table):
        heads[table] = place
        for name in dict.fromkeys(row.name for row in group):
            place += 1
            places[table, name] = place
            ticks[place] = name
        place += 1.5
    return places, ticks, heads


def _order(rows: Sequence[Row]) -> Any:
    """Sort key: tables, then rows, in the order of their first appearance."""
    tables = list(dict.fromkeys(row.table for row in rows))
    return lambda row: tables.index(row.table)


def _kinds(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Combinations of threads and dtype, one style each."""
    return list(dict.fromkeys((row.threads, row.dtype) for row in rows))


def _panel(
    panel: Any,
    group: Sequence[Row],
    places: dict[tuple[str, str], float],
    rows: Sequence[Row],
) -> None:
    """Marks of one product, joined to the line at 1; the geometric means on top."""
    kinds = _kinds(rows)
    shifts = [0.3 * (i - (len(kinds) - 1) / 2) for i in range(len(kinds))]
    means = []
    for kind, shift, (colour, marker) in zip(kinds, shifts, itertools.cycle(STYLES)):
        some = [row for row in group if (row.threads, row.dtype) == kind]
        if not some:
            continue
        heights = [places[row.table, row.name] + shift for row in some]
        _marks(panel, some, heights, colour, marker, _kind_label(kind, rows))
        means.append(f"{geometric_mean(row.ratio() or 1.0 for row in some):.2f}")
    panel.axvline(1, color="black", linewidth=1)
    panel.set_xscale("log")
    everything = [row.ratio() or 1.0 for row in rows]
    low, high = min(0.8, *everything), max(1.25, *everything)
    ticks = [tick for tick in TICKS if low / 1.3 <= tick <= high * 1.3]
    edge = low / (high / low) ** 0.12  # room for the figures left of the marks
    panel.set_xlim(edge, high * 1.15)
    panel.axvspan(edge, 1, color="0.97", zorder=-1)
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.grid(axis="x", color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.set_xlabel("geometric mean " + " and ".join(means), fontsize=8)


def _marks(
    panel: Any,
    rows: Sequence[Row],
    heights: Sequence[float],
    colour: str,
    marker: str,
    label: str,
) -> None:
    """One mark per row, hollow where the row is noisy; the figure itself where it is below 1."""
    ratios = [row.ratio() or 1.0 for row in rows]
    panel.hlines(heights, 1, ratios, color=colour, linewidth=1, alpha=0.45)
    style = {"color": colour, "linestyle": "none", "marker": marker, "markersize": 4}
    panel.plot(ratios, heights, label=label, **style)
    for row, ratio, height in zip(rows, ratios, heights, strict=True):
        if row.noisy:
            panel.plot([ratio], [height], **style, markerfacecolor="white")
        if ratio < 0.995:
            panel.annotate(
                f"{ratio:.2f}",
                (ratio, height),
                (-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=5.5,
                color=colour,
            )


def _kind_label(kind: tuple[int, str], rows: Sequence[Row]) -> str:
    threads, dtype = kind
    label = "1 thread" if threads == 1 else f"{threads} threads"
    return label if len({row.dtype for row in rows}) == 1 else f"{label}, {dtype}"


def _legend(axes: Sequence[Any], rows: Sequence[Row]) -> tuple[list[Any], list[str]]:
    """Every style once, whichever panel has it."""
    found: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if any(row.noisy for row in rows):
        from matplotlib.lines import Line2D

        style: dict[str, Any] = {"color": "0.4", "linestyle": "none", "markerfacecolor": "white"}
        found["hollow: disturbed by other processes"] = Line2D([], [], marker="o", **style)
    return list(found.values()), list(found)
