"""The compiled im2col, bit for bit the naive loops', where its runs and vectors end."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference


def same_bits(x, window, **options):
    found, right = (f.im2col(x, window, **options) for f in (fc, reference))
    assert found.dtype == right.dtype.newbyteorder("=")
    assert found.tobytes() == right.astype(found.dtype).tobytes(), (x.shape, window, options)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_windows_of_any_geometry_and_layout(rank, dtype):
    rng = np.random.default_rng(rank)
    for number in range(80):
        first = number % 2 == 1
        C, W = (int(rng.choice(n)) for n in ((1, 2, 3, 5, 9, 17, 40), (1, 2, 5, 14, 31)))
        size = (*(3,) * (rank - 1), W)
        x = rng.standard_normal((2, C, *size) if first else (2, *size, C)).astype(dtype)
        if number % 5 == 0:
            x = x.astype(x.dtype.newbyteorder())
        if number % 3 == 0:
            x = x[::-1, ..., ::-1]
        stride, window, dilation = (int(rng.integers(1, n)) for n in (4, 4, 3))
        padding = int(rng.integers(0, 4))
        if min(size) + 2 * padding >= (window - 1) * dilation + 1:
            same_bits(x, window, stride=stride, padding=padding, dilation=dilation,
                      data_format=("channels_last", "channels_first")[first])  # fmt: skip


@pytest.mark.parametrize("channels", range(1, 40))
def test_runs_of_every_length(channels):
    x = np.random.default_rng(channels).standard_normal((1, 3, 5, channels))
    for dtype in ("float16", "float32", "float64"):
        same_bits(x.astype(dtype), (2, 1))


def test_threads_and_parts_of_images_change_nothing(monkeypatch):
    from fastconv.engine import columns
    from fastconv.plans import columns as plans

    monkeypatch.setattr(columns, "GRAIN", 1)
    monkeypatch.setattr(columns, "BLOCK", 8)
    monkeypatch.setattr(plans, "BLOCK", 200)
    x = np.random.default_rng(0).standard_normal((5, 6, 7, 3)).astype("float32")
    for threads in (1, 2, 3):
        with fc.num_threads(threads):
            same_bits(x, 3, padding=1)
            same_bits(np.moveaxis(x, -1, 1), 3, padding=1, data_format="channels_first")
            same_bits(x.transpose(0, 3, 1, 2), 2, data_format="channels_last")
