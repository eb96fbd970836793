"""Sizes, shapes and the caller's arguments: everything that is decided before an array is touched.

`geometry` has the vocabulary and `Geometry`, `sizes` the formulas, `request` the caller's
arguments and their errors, `resolve` makes a Geometry of them, `memo` keeps it.
"""

from fastconv.geometry.geometry import Geometry, padding_sources
from fastconv.geometry.sizes import effective, output_size, resolved_pads, transposed_pad

__all__ = [
    "Geometry",
    "effective",
    "output_size",
    "padding_sources",
    "resolved_pads",
    "transposed_pad",
]
