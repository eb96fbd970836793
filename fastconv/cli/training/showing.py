"""``fastconv train --show-augmentation``: a picture of what the training images become."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastconv.cli.training import figures
from fastconv.cli.training.setup import Setup
from fastconv.nn.files import replacing

__all__ = ["show_augmentation"]

ROWS, TIMES, DPI = 8, 7, 130


def show_augmentation(path: Path, setup: Setup, seed: int) -> str:
    """Draw a training image of each class, as it is and as the recipe changes it.

    Parameters
    ----------
    path : Path
        The PNG file, whole or absent afterwards.
    setup : Setup
        With a recipe that changes images.
    seed : int
        Of the changes.

    Returns
    -------
    str
        A line about the picture.
    """
    augment, rng = setup.recipe.augment(), np.random.default_rng(seed)
    _, first = np.unique(setup.y, return_index=True)
    images = setup.x[first[:ROWS]]
    changed = [augment(images, rng) for _ in range(TIMES)]
    figure = figures.augmentation([images, *changed], f"{setup.name}: {augment!r}")
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DPI)
    return f"{path}: {len(images)} training images, as they are and changed {TIMES} times"
