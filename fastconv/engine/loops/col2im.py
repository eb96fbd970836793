"""col2im as a gather: each input cell adds up the taps that looked at it."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastconv.compiler.kernel import kernel
from fastconv.engine import known_calls

__all__ = ["col2im_rows", "col2im_rows_parallel"]


@kernel(works=known_calls.col2im_works)
def col2im_rows(cols, dx, axes, start, stop):
    """Add to dx, for its rows `start` to `stop`, what its cells find in cols.

    ``cols (n, OD, OH, OW, T, C)``, ``dx (n, D, H, W, C)``; `axes` has rows ``(N, k, s, d, lo, O)``.
    Tap u of output o looked at cell ``h = o*s + u*d - lo``, so cell h asks each u whether
    ``h + lo - u*d`` is a multiple of s and its o inside the output. Taps in scan order: the sum
    has one order, whoever computes it.
    """
    D, H, W, C = dx.shape[1:]
    KD, KH, KW = axes[0, 1], axes[1, 1], axes[2, 1]
    OD, OH, OW = axes[0, 5], axes[1, 5], axes[2, 5]
    step = axes[2, 2]
    for row in range(start, stop):
        n, d, h = row // (D * H), row // H % D, row % H
        for u in range(KD):
            od, rest_d = divmod(d + axes[0, 4] - u * axes[0, 3], axes[0, 2])
            if rest_d != 0 or od < 0 or od >= OD:
                continue
            for v in range(KH):
                oh, rest_h = divmod(h + axes[1, 4] - v * axes[1, 3], axes[1, 2])
                if rest_h != 0 or oh < 0 or oh >= OH:
                    continue
                for t in range(KW):
                    tap = (u * KH + v) * KW + t
                    at = t * axes[2, 3] - axes[2, 4]  # of output 0
                    first, stop = max(0, -(at // step)), min(OW, (W - 1 - at) // step + 1)
                    line, taps = dx[n, d, h], cols[n, od, oh]
                    if C == 1:  # no loop for one addition
                        for ow in range(first, stop):
                            line[np.uint64(at + ow * step), 0] += taps[np.uint64(ow), tap, 0]
                        continue
                    for ow in range(first, stop):
                        for c in range(C):
                            line[at + ow * step, c] += taps[ow, tap, c]


@kernel(works=known_calls.col2im_parallel_works, parallel=True)
def col2im_rows_parallel(parts, cols, dx, axes, rows):
    """`col2im_rows` over all rows, in `parts` parts."""
    for part in prange(parts):
        col2im_rows(cols, dx, axes, part * rows // parts, (part + 1) * rows // parts)
