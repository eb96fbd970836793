"""Operands and geometries, small enough for the naive loops: by seeds, and for hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from fastconv.geometry import Geometry
from fastconv.geometry.resolve import conv_geometry

# Shape of x, shape of w (or window), options.
Problem = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]


def integers(
    seed: int | np.random.Generator, *shape: int, dtype: Any = np.float64, high: int = 4
) -> np.ndarray:
    """Integers from ``-high`` to `high` in a floating dtype: sums of products are exact."""
    return np.random.default_rng(seed).integers(-high, high + 1, shape).astype(dtype)


def layout(shape: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """A channels-last shape in `data_format`."""
    return shape if data_format == "channels_last" else (shape[0], shape[-1], *shape[1:-1])


def _axis_options(rng: np.random.Generator, rank: int, largest_stride: int) -> dict[str, Any]:
    stride = tuple(int(s) for s in rng.integers(1, largest_stride + 1, rank))
    dilation = tuple(int(d) for d in rng.choice([1, 1, 1, 2, 3], rank))
    return {"stride": stride, "dilation": dilation}


def _padding(rng: np.random.Generator, reach: list[int]) -> Any:
    """Any form of padding; numbers up to `reach` on each axis."""
    kind = rng.integers(6)
    if kind == 0:
        return str(rng.choice(["valid", "same", "full"]))
    if kind == 1:
        return int(rng.integers(0, min(reach) + 1))
    if kind == 2:
        return tuple(int(rng.integers(0, r + 1)) for r in reach)
    return tuple((int(rng.integers(0, r + 1)), int(rng.integers(0, r + 1))) for r in reach)


def _fits(x_size: list[int], window: list[int], dilation: tuple[int, ...]) -> list[int]:
    """Input sizes grown until the window fits without padding."""
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    return [max(n, span) for n, span in zip(x_size, spans, strict=True)]


def random_conv(
    rng: np.random.Generator,
) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """(x_shape, w_shape, options) of a convolution, channels last."""
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    top = {1: 9, 2: 6, 3: 4}[rank]
    options = _axis_options(rng, rank, 3)
    window = [int(k) for k in rng.integers(1, 4, rank)]
    x_size = _fits([int(n) for n in rng.integers(1, top + 1, rank)], window, options["dilation"])
    G = int(rng.choice([1, 1, 1, 2, 3]))
    C, F = G * int(rng.integers(1, 4)), G * int(rng.integers(1, 4))
    reach = [(k - 1) * d + 1 for k, d in zip(window, options["dilation"], strict=True)]
    options |= {"padding": _padding(rng, reach), "groups": G}
    m = int(rng.integers(1, 4))
    return (m, *x_size, C), (*window, C // G, F), options


def random_transpose(rng: np.random.Generator) -> Problem:
    """(x_shape, w_shape, options) of a transposed convolution, channels last."""
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    top = {1: 7, 2: 4, 3: 3}[rank]
    options = _axis_options(rng, rank, 3)
    window = [int(k) for k in rng.integers(1, 4, rank)]
    x_size = [int(n) for n in rng.integers(2, top + 1, rank)]
    G = int(rng.choice([1, 1, 1, 2]))
    C, F = G * int(rng.integers(1, 4)), G * int(rng.integers(1, 3))
    axes = list(zip(x_size, window, options["stride"], options["dilation"], strict=True))
    room = [((n - 1) * s + (k - 1) * d) // 2 for n, k, s, d in axes]
    padding = "same" if rng.integers(6) == 0 else _padding(rng, [min(r, 2) for r in room])
    if padding == "full":
        padding = "valid"
    extra = tuple(int(rng.integers(0, max(s, d))) for _, _, s, d in axes)
    options |= {"padding": padding, "groups": G}
    options["output_padding"] = 0 if padding == "same" else extra
    m = int(rng.integers(1, 3))
    return (m, *x_size, C), (*window, F // G, C), options


def random_pool(
    rng: np.random.Generator,
) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """(x_shape, window, options) of a pooling, channels last."""
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    top = {1: 12, 2: 7, 3: 5}[rank]
    options = _axis_options(rng, rank, 3)
    window = [int(k) for k in rng.integers(1, 4, rank)]
    x_size = _fits([int(n) for n in rng.integers(1, top + 1, rank)], window, options["dilation"])
    reach = [((k - 1) * d + 1) // 2 for k, d in zip(window, options["dilation"], strict=True)]
    padding = _padding(rng, reach)
    options |= {"padding": "valid" if padding == "full" else padding}
    options["ceil_mode"] = bool(rng.integers(2))
    m, C = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    return (m, *x_size, C), tuple(window), options


def random_geometry(rng: np.random.Generator) -> Geometry:
    """A convolution, in more channels, depthwise too, and any padding that makes it fit."""
    rank = int(rng.integers(1, 4))
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    c, f = groups * int(rng.integers(1, 6)), groups * int(rng.integers(1, 6))
    if rng.random() < 0.2:
        groups, f = c, c
    window = [int(rng.integers(1, 5 if rank < 3 else 3)) for _ in range(rank)]
    stride = [int(rng.integers(1, 4)) for _ in range(rank)]
    dilation = [int(rng.integers(1, 3)) for _ in range(rank)]
    size = [int(rng.integers(1, 12 if rank < 3 else 7)) for _ in range(rank)]
    pads = [[int(p) for p in rng.integers(0, 4, 2)] for _ in range(rank)]
    for i in range(rank):
        lack = (window[i] - 1) * dilation[i] + 1 - size[i] - sum(pads[i])
        pads[i][1] += max(0, lack)
    return conv_geometry(
        (int(rng.integers(1, 4)), *size, c), (*window, c // groups, f), stride=tuple(stride),
        padding=tuple(map(tuple, pads)), dilation=tuple(dilation), groups=groups,
    )  # fmt: skip


# For hypothesis ---------------------------------------------------------------------------------

small = st.integers(1, 3)
WIDTHS = st.sampled_from([1, 2, 3, 4, 7, 8, 9, 13, 16, 17, 23, 24, 25, 31, 32, 33, 48, 65])


@st.composite
def geometry(draw, kind="conv"):
    """(x_shape, w_shape or window, options), channels last; it need not fit."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    top = {1: 9, 2: 5, 3: 3}[rank]
    size = tuple(draw(st.integers(1, top)) for _ in range(rank))
    window = tuple(draw(small) for _ in range(rank))
    per_axis = st.one_of(small, st.tuples(*[small] * rank))
    options = {"stride": draw(per_axis), "dilation": draw(per_axis), "padding": draw(pads(rank))}
    m = draw(st.integers(0, 2 if rank > 1 else 3))
    if kind != "conv":
        channels = draw(st.sampled_from([1, 1, 2, 3, 5, 8, 17]))
        if kind == "pool":
            options["ceil_mode"] = draw(st.booleans())
            options["stride"] = draw(st.one_of(st.none(), per_axis))
        return (m, *size, channels), window, options
    G = options["groups"] = draw(st.sampled_from([1, 1, 1, 2, 3]))
    wide = st.sampled_from([1, 2, 3, 3, 4, 9]) if rank < 3 else small
    c, f = draw(wide), draw(wide)
    return (m, *size, c * G), (*window, c, f * G), options


@st.composite
def pads(draw, rank):
    """Padding in any of its forms."""
    n = st.integers(0, 3)
    pair = st.tuples(n, n)
    form = st.one_of(n, st.sampled_from(["valid", "same", "full"]), st.tuples(*[pair] * rank))
    return draw(st.one_of(form, st.tuples(*[n] * rank)))


@st.composite
def fitting_geometry(draw):
    """Shapes and options of a convolution that fits, up to 30 pixels and 65 channels wide."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    top = {1: 60, 2: 18, 3: 6}[rank]
    per_axis = [draw(st.integers(1, 4 if rank < 3 else 2)) for _ in range(rank)]
    stride = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    dilation = tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(rank))
    spans = [(k - 1) * d + 1 for k, d in zip(per_axis, dilation, strict=True)]
    size = tuple(draw(st.integers(e, max(e, top))) for e in spans)
    pairs = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank))
    kind = draw(st.sampled_from(["dense", "dense", "groups", "depthwise"]))
    c, f = draw(WIDTHS), draw(WIDTHS)
    G = {"dense": 1, "groups": draw(st.integers(2, 3)), "depthwise": c}[kind]
    if kind == "depthwise":
        C, F = c, c
    else:
        C, F = (c, f) if G == 1 else (G * min(c, 20), G * min(f, 20))
    x_shape = (draw(st.integers(0, 3)), *size, C)
    options = {"stride": stride, "padding": pairs, "dilation": dilation, "groups": G}
    return x_shape, (*per_axis, C // G, F), options
