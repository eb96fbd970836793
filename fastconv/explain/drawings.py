"""Two images of digits that need no other package."""

from __future__ import annotations

import numpy as np

__all__ = ["drawing", "framed"]

# Drawn for this program, 0 to 16 as in scikit-learn's digits: used where that is not installed.
DRAWINGS = {
    0: """
        0  0  3 12 13  4  0  0
        0  1 13 10  9 14  1  0
        0  6 12  0  0 11  7  0
        0  8  9  0  0  8  9  0
        0  8  8  0  0  8  9  0
        0  6 11  0  0 10  8  0
        0  1 14  8  8 14  2  0
        0  0  4 13 12  4  0  0
    """,
    1: """
        0  0  0  2 13  6  0  0
        0  0  2 13 16  6  0  0
        0  3 13 12 16  4  0  0
        0  4  5  4 16  4  0  0
        0  0  0  4 16  4  0  0
        0  0  0  5 16  3  0  0
        0  0  0  7 16  5  0  0
        0  0  0  3 13  6  0  0
    """,
}


def drawing(digit: int) -> np.ndarray:
    """The built-in image of a digit, float64 (8, 8) in [0, 1].

    Examples
    --------
    >>> drawing(0).shape
    (8, 8)
    """
    return np.array(DRAWINGS[digit].split(), np.float64).reshape(8, 8) / 16


def framed(image: np.ndarray, side: int = 14) -> np.ndarray:
    """An image in a frame of zeros, as MNIST frames its digits: (side, side).

    Examples
    --------
    >>> framed(drawing(0)).shape
    (14, 14)
    """
    frames = [((side - n) // 2, side - n - (side - n) // 2) for n in image.shape]
    return np.pad(image, frames)
