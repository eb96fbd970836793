"""The figures of ``fastconv train --report``. Needs matplotlib; opens no window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

__all__ = ["augmentation", "confusion_matrix", "filters", "learning_curve", "mistakes"]

INK, FAINT, TRAIN, VALIDATION = "#222222", "#8a8a8a", "#1f5fa8", "#e07b00"
MAX_FILTERS = 64


def learning_curve(history: Any) -> Figure:
    """Loss and accuracy per epoch, of training and validation.

    Parameters
    ----------
    history : fastconv.nn.History
    """
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = history["epoch"]
    for ax, key, title in zip(axes, ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        series = {"training": history[key], "validation": history[f"val_{key}"]}
        drawn = {n: v for n, v in series.items() if all(value is not None for value in v)}
        upper = max(drawn, key=lambda n: drawn[n][-1], default="")
        for name, values in drawn.items():
            colour = TRAIN if name == "training" else VALIDATION
            ax.plot(epochs, values, marker="o", markersize=3, color=colour, label=name)
            ax.annotate(
                f"{values[-1]:.3f}" if key == "loss" else f"{values[-1]:.1%}",
                (epochs[-1], values[-1]),
                xytext=(7, 5 if name == upper else -5),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=9,
                annotation_clip=False,
            )
        ax.set_xlim(0.7, epochs[-1] + 0.3)
        ax.set_title(title, loc="left", color=INK, fontsize=12)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(color="#e6e6e6", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(top=min(axes[1].get_ylim()[1], 1.02))
    axes[1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].legend(frameon=False)
    return figure


def filters(w: np.ndarray) -> Figure:
    """The kernels of the first layer, one tile each.

    Parameters
    ----------
    w : ndarray (KH, KW, C, F)
        With C = 1 a tile shows the weights by sign; with C = 3 as colours around a middle grey,
        which is 0; with other numbers of channels, their mean over C.
    """
    if w.shape[2] == 3:
        return _colour_filters(w)
    tiles = w.mean(axis=2).transpose(2, 0, 1)[:MAX_FILTERS]  # (F, KH, KW)
    columns = min(8, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    figure = Figure(figsize=(max(1.05 * columns, 2) + 1.2, 1.2 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    peak = float(np.abs(tiles).max()) or 1.0
    image: Any = None
    for number, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if number < len(tiles):
            image = ax.imshow(tiles[number], cmap="RdBu_r", vmin=-peak, vmax=peak)
            ax.set_title(str(number), fontsize=8, color=FAINT, pad=2)
    figure.colorbar(image, ax=axes, shrink=min(1.0, 0.55 + 0.15 * rows), label="weight")
    return figure


def _colour_filters(w: np.ndarray) -> Figure:
    tiles = w.transpose(3, 0, 1, 2)[:MAX_FILTERS]  # (F, KH, KW, 3)
    columns = min(8, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    figure = Figure(figsize=(max(1.05 * columns, 2), 1.2 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for number, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if number < len(tiles):
            peak = float(np.abs(tiles[number]).max()) or 1.0  # each by its own: colours compare
            ax.imshow(0.5 + tiles[number] / (2 * peak))
            ax.set_title(str(number), fontsize=8, color=FAINT, pad=2)
    return figure


def confusion_matrix(labels: np.ndarray, found: np.ndarray, names: Sequence[str]) -> Figure:
    """How often images of each class were taken for each class.

    Parameters
    ----------
    labels, found : ndarray (m,)
        True and predicted labels.
    names : sequence of str
        What each class is called.
    """
    classes = len(names)
    from sklearn import metrics

    numbers = range(max(2, classes))  # of a single class scikit-learn warns
    counts = metrics.confusion_matrix(labels, found, labels=numbers)[:classes, :classes]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    longest = max(map(len, names))
    side = min(3.0 + 0.38 * classes, 14.0) + 0.07 * longest  # inches
    figure = Figure(figsize=(side, side * 0.92), layout="constrained")
    ax = figure.subplots()
    # The root brings out single mistakes beside a diagonal near 1.
    ax.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1.15)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    if classes <= 30:
        rotation = 90 if longest > 3 else 0
        ax.set_xticks(range(classes), names, rotation=rotation, parse_math=False)
        ax.set_yticks(range(classes), names, parse_math=False)
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[i, j] > 0.4 else INK
                weight = "bold" if i != j else "normal"
                ax.text(j, i, str(count), ha="center", va="center", color=colour, fontweight=weight)
    ax.tick_params(length=0)
    ax.spines[:].set_color("#cccccc")
    return figure


def attention(
    images: Sequence[np.ndarray], maps: Sequence[Sequence[np.ndarray]], titles: Sequence[str],
    heads: Sequence[str],
) -> Figure:  # fmt: skip
    """Images, a row each, with what the network looked at beside them.

    Parameters
    ----------
    images : sequence of ndarray (H, W, C)
    maps : sequence of sequences of ndarray (H, W)
        Of each image, one for each column.
    titles : sequence of str
        Of the rows.
    heads : sequence of str
        Of the columns; the first is the image's.
    """
    rows, columns = len(images), len(heads)
    figure = Figure(figsize=(1.75 * columns + 1.6, 1.75 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (image, found) in enumerate(zip(images, maps, strict=True)):
        for column, ax in enumerate(axes[row]):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color("#cccccc")
            if image.shape[2] == 3:
                ax.imshow(np.clip(image, 0, 1) if column == 0 else image.mean(axis=2), cmap="gray")
            else:
                ax.imshow(image.mean(axis=2), cmap="gray_r")
            if column:
                ax.imshow(found[column - 1], cmap="inferno", alpha=0.75)
            if row == 0:
                ax.set_title(heads[column], fontsize=9, color=INK, parse_math=False)
        axes[row, 0].set_ylabel(
            titles[row], fontsize=9, color=INK, rotation=0, ha="right", va="center",
            parse_math=False,
        )  # fmt: skip
    return figure


def mistakes(images: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Misclassified images with what they were and what they were taken for.

    Parameters
    ----------
    images : sequence of ndarray (H, W, C)
    titles : sequence of str
        One or two lines above each image.
    """
    columns = min(6, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.75 * columns, 2.15 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for number, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if number < len(images):
            ax.set_axis_on()
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color("#cccccc")
            _draw(ax, images[number])
            ax.set_title(titles[number], fontsize=9, color=INK, parse_math=False)
    return figure


def _draw(ax: Any, image: np.ndarray, **limits: float) -> None:
    """An image (H, W, C), in colour if it has three channels."""
    if image.shape[2] == 3:
        ax.imshow(np.clip(image, 0, 1))
    else:
        ax.imshow(image.mean(axis=2), cmap="gray_r", **limits)


def augmentation(columns: Sequence[np.ndarray], title: str) -> Figure:
    """Images and what random changes make of them, one image a row.

    Parameters
    ----------
    columns : sequence of ndarray (rows, H, W, C)
        The images as they are, then changed, time and again.
    title : str
        What changes them.
    """
    rows = len(columns[0])
    figure = Figure(figsize=(1.1 * len(columns) + 0.3, 1.1 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for number, images in enumerate(columns):
        for row, ax in enumerate(axes[:, number]):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color(INK if number == 0 else "#cccccc")
            original = columns[0][row]  # one scale of grey a row: brightness shows
            _draw(ax, images[row], vmin=float(original.min()), vmax=float(original.max()) or 1.0)
        axes[0, number].set_title("as it is" if number == 0 else str(number), fontsize=9, color=INK)
    figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
    return figure
