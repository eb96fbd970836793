"""Naive loops for every public function: the ground truth, and how backpropagation works.

Every function has the name, arguments and results of its fast twin in ``fastconv``. Use it to
check code of your own, or read it to learn: nothing here is clever, and it needs only NumPy.

Symbols: ``x, w, b, y`` are input, kernel, bias, output; ``dx, dw, db, dy`` the gradients of the
loss with respect to them (a "delta" is the gradient at a pre-activation ``z``). ``x`` is
``(m, H, W, C)``: images, height, width, channels; ``w`` is ``(KH, KW, C/G, F)`` with G groups and
F filters; ``y`` is ``(m, OH, OW, F)``. In 1-D there is only W, in 3-D there is D, H, W. Stride s,
padding p (lo, hi) and dilation d are per axis; a window spans ``eff = (K - 1)*d + 1`` cells.

One picture carries all functions. For output pixel ``i`` and window tap ``u`` the window touches

    input cell  h = i*s + u*d - lo                (`_Grid.cell`; on each spatial axis)

and every function is a loop over the triples ``(i, u, h)`` whose cell lies inside the input
(`_Grid.steps`; a cell in the padding adds nothing). Forward reads h and writes i; backward walks
the same triples and reads i and writes h: an error returns along the path its value came by.

A network with one convolution
------------------------------
Image x, label y in {0, 1}: convolution, ReLU, 2x2 maximum, dense layer, sigmoid, cross-entropy.

    (1)  z1 = conv(x, w1) + b1           z1[i,j] = b1 + sum_uv x[i+u, j+v] w1[u,v]
    (2)  a1 = max(z1, 0)
    (3)  a2 = max_pool(a1, 2)            and remember each window's winner (its argmax)
    (4)  z3 = a2 @ w3 + b3               a2 flattened to a row
    (5)  a3 = 1 / (1 + exp(-z3))
    (6)  L  = -y log(a3) - (1 - y) log(1 - a3)

Backward, the chain rule from the loss to the image:

    (7)  dL/dz3 = a3 - y                 sigmoid and cross-entropy cancel to a difference
    (8)  dL/da2 = dL/dz3 @ w3.T          also dw3 = a2.T @ dL/dz3 and db3 = dL/dz3
    (9)  dL/da1 = max_pool_backward      all of a window's error goes to its winner; the other
                                         three cells did not touch the loss: exactly zero
    (10) delta1 = dL/da1 * (z1 > 0)      where ReLU was flat, nothing passes
    (11) dw1[u,v] = sum_ij delta1[i,j] x[i+u, j+v]     and     db1 = sum_ij delta1[i,j]

Equation (11) holds because w1[u,v] met x[i+u, j+v] at every pixel (i, j) of z1, and only there.

Two convolutions
----------------
c1 -> f -> subsampling -> c2: the cell h of c2's input fed the pixels ``i = h - u`` of c2's output,
each through its tap u. Running u over the window visits c2's delta backwards, so

    dL/d(input of c2) = full convolution of c2's delta with w2 flipped on both axes
    delta of c1       = upsample(dL/d(input of c2)) * f'(z of c1)

where upsample undoes the subsampling: after a maximum each error goes to its winner, after a mean
it is spread evenly over the window. f' is z > 0 for ReLU, a(1 - a) for the sigmoid.

Arguments shared by the functions
---------------------------------
stride, dilation, window : int, or one int per spatial axis. A pool's stride=None is its window.
padding : int; one int or one (lo, hi) pair per axis; "valid" (none), "same" (OH = ceil(H/s), the
    odd cell on the high side) or "full" (eff - 1 on both sides).
data_format : "channels_last", or "channels_first" for (m, C, H, W) arrays; w never changes.
activation : None or "relu", applied to the output; a backward takes dy before the activation.
out : array to write the result to; right shape and dtype, no overlap with an input.

Arrays are float16, float32 or float64, one dtype per call, which the result has too; float16 sums
are kept in float32. A ValueError or TypeError tells what is wrong with an argument.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Ints = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]
Index = tuple[int, ...]
Array = np.ndarray


class ConvGrads(NamedTuple):
    """Gradients with respect to x, w and b; None for one that was not in ``need``."""

    dx: Array | None
    dw: Array | None
    db: Array | None


# ---- geometry: which input cell lies under which tap ------------------------------------------


class _Grid(NamedTuple):
    """Positions of a window over an input; each field has one entry per spatial axis."""

    sizes: Index  # of the input: H, W
    pixels: Index  # of the output: OH, OW
    window: Index  # KH, KW
    stride: Index
    dilation: Index
    pads: tuple[Index, ...]  # (lo, hi)

    def cell(self, i: Index, u: Index) -> Index:
        """Input cell under tap u of the window at output pixel i; it may lie in the padding."""
        axes = zip(i, self.stride, u, self.dilation, self.pads, strict=True)
        return tuple(a * s + t * d - lo for a, s, t, d, (lo, _) in axes)

    def inside(self, h: Index, include_pad: bool = False) -> bool:
        """Whether h is a cell of the input (of the padded input, if padding is included)."""
        axes = zip(h, self.sizes, self.pads, strict=True)
        return all(-lo * include_pad <= a < n + hi * include_pad for a, n, (lo, hi) in axes)

    def steps(self) -> Iterator[tuple[Index, Index, Index]]:
        """Every (output pixel i, tap u, input cell h) with h inside the input, in scan order."""
        for i in np.ndindex(self.pixels):
            for u in np.ndindex(self.window):
                h = self.cell(i, u)
                if self.inside(h):
                    yield i, u, h

    def count(self, i: Index, include_pad: bool) -> int:
        """Cells of the window at pixel i that are inside the (padded) input."""
        return sum(self.inside(self.cell(i, u), include_pad) for u in np.ndindex(self.window))


def _ints(name: str, value: Ints, length: int, low: int) -> Index:
    """``value`` as ``length`` integers, none below ``low``."""
    values = value if isinstance(value, (Sequence, np.ndarray)) else (value,) * length
    result = tuple(operator.index(v) for v in values)
    if len(result) != length or any(v < low for v in result):
        raise ValueError(f"{name} must be {length} integer(s), at least {low}; got {value!r}")
    return result


def _pads(padding: Padding, spans: Index, same: Iterable[int]) -> tuple[Index, ...]:
    """(lo, hi) per axis, for windows that span ``spans``; ``same`` are the totals of "same"."""
    if isinstance(padding, str):
        totals = {"valid": [0 * e for e in spans], "same": same, "full": [2 * e - 2 for e in spans]}
        if padding not in totals:
            raise ValueError(f"padding must be integers or one of {list(totals)}; got {padding!r}")
        return tuple((total // 2, total - total // 2) for total in totals[padding])
    pairs = padding if isinstance(padding, (Sequence, np.ndarray)) else [padding] * len(spans)
    if len(pairs) != len(spans):
        raise ValueError(f"padding needs {len(spans)} entries, one per axis; got {padding!r}")
    return tuple(_ints("padding", pair, 2, 0) for pair in pairs)


def _grid(
    shape: Index, window: Ints, stride: Ints | None, padding: Padding, dilation: Ints,
    ceil_mode: bool = False, pool: bool = False,
) -> _Grid:  # fmt: skip
    """Windows that fit into the padded x (``shape``, channels last); ceil_mode: and one more."""
    sizes = shape[1:-1]
    window = _ints("window", window, len(sizes), 1)
    stride = window if stride is None else _ints("stride", stride, len(sizes), 1)
    dilation = _ints("dilation", dilation, len(sizes), 1)
    spans = tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
    axes = list(zip(sizes, stride, spans, strict=True))
    pads = _pads(padding, spans, [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in axes])
    pixels = []
    for (n, s, span), (lo, hi) in zip(axes, pads, strict=True):
        room = n + lo + hi - span  # how far the first window can slide
        count = 1 + (-(-room // s) if ceil_mode else room // s)
        if ceil_mode and (count - 1) * s >= n + lo:
            count -= 1  # the last window would start in the high padding
        pixels.append(count)
    grid = _Grid(sizes, tuple(pixels), window, stride, dilation, pads)
    if min(shape[1:]) < 1 or min(pixels) < 1:
        raise ValueError(f"the window does not fit into the padded input: {shape}, {grid}")
    if pool and any(2 * max(pair) > span for pair, span in zip(pads, spans, strict=True)):
        raise ValueError(f"the padding of a pool is at most half its window: {grid}")
    return grid


def _conv_grid(
    shape: Index, w: Index, stride: Ints, padding: Padding, dilation: Ints, groups: int
) -> tuple[_Grid, Index]:
    """Geometry of a convolution of x (``shape``) with a kernel of shape ``w``; shape of y."""
    _check_kernel(w, len(shape), groups)
    if shape[-1] != w[-2] * groups:
        raise ValueError(f"w {w} takes {w[-2]} * {groups} channels, x {shape} has {shape[-1]}")
    grid = _grid(shape, w[:-2], stride, padding, dilation)
    return grid, (shape[0], *grid.pixels, w[-1])


def _transposed_grid(
    shape: Index, w: Index, stride: Ints, padding: Padding, extra: Ints, dilation: Ints, groups: int
) -> tuple[_Grid, Index]:
    """Geometry of the convolution from y to x that `conv_transpose` walks backwards; y's shape."""
    _check_kernel(w, len(shape), groups)
    pixels, rank, same = shape[1:-1], len(shape) - 2, padding == "same"
    stride, dilation = _ints("stride", stride, rank, 1), _ints("dilation", dilation, rank, 1)
    spans = tuple((k - 1) * d + 1 for k, d in zip(w, dilation, strict=False))
    pads = _pads(padding, spans, [max(e - s, 0) for e, s in zip(spans, stride, strict=True)])
    extra = _ints("output_padding", extra, rank, 0)
    sizes = []
    for n, s, d, span, (lo, hi), more in zip(
        pixels, stride, dilation, spans, pads, extra, strict=True
    ):
        if more >= (1 if same else max(s, d)):
            raise ValueError(f"output_padding {more} is not below stride or dilation, or not 0")
        sizes.append(n * s if same else (n - 1) * s - lo - hi + span + more)
    if shape[-1] != w[-1] or min(shape[1:]) < 1 or min(sizes) < 1:
        raise ValueError(f"conv_transpose of x {shape} with w {w} gives spatial sizes {sizes}")
    grid = _Grid(tuple(sizes), pixels, w[:-2], stride, dilation, pads)
    return grid, (shape[0], *sizes, w[-2] * groups)


def _check_kernel(w: Index, ndim: int, groups: int) -> None:
    if len(w) != ndim or not 3 <= ndim <= 5 or min(w) < 1:
        raise ValueError(f"w needs {ndim} axes (3, 4 or 5), none of them empty; its shape is {w}")
    if operator.index(groups) < 1 or w[-1] % groups:
        raise ValueError(f"groups={groups} must be positive and divide {w[-1]}, w's last axis")


# ---- arrays: in, and out ----------------------------------------------------------------------


def _load(
    data_format: str, out: Array | None = None, **operands: Array | None
) -> tuple[list[Any], Callable[..., Array]]:
    """Operands in the dtype that sums are kept in, images channels last; and the way back."""
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"data_format must be channels_last or channels_first: {data_format!r}")
    first = data_format == "channels_first"
    given = {name: np.asanyarray(a) for name, a in operands.items() if a is not None}
    dtype = next(iter(given.values())).dtype.newbyteorder("=")
    for name, a in given.items():
        if a.dtype.newbyteorder("=") != dtype or dtype not in ("f2", "f4", "f8"):
            raise TypeError(f"operands must share one float dtype; {name} has {a.dtype}")
        if isinstance(a, np.ma.MaskedArray):
            raise TypeError(f"{name} is a masked array; its mask would be ignored")
    arrays: list[Any] = []
    for name, operand in operands.items():
        if operand is not None:
            operand = np.asarray(operand, np.float32 if dtype == "f2" else dtype)
            operand = np.moveaxis(operand, 1, -1) if first and name in ("x", "dy") else operand
        arrays.append(operand)

    @np.errstate(over="ignore")
    def store(result: Array, image: bool = True, dtype: Any = dtype) -> Array:
        """``result`` in the caller's dtype and data format, in ``out`` if there is one."""
        result = np.moveaxis(result, -1, 1) if first and image else result
        result = np.ascontiguousarray(result, dtype)
        if out is None:
            return result
        if out.shape != result.shape or out.dtype != dtype or not out.flags.writeable:
            raise ValueError(f"out must be a writeable {dtype} array of shape {result.shape}")
        if any(np.shares_memory(out, a) for a in given.values()):
            raise ValueError("out overlaps an input")
        out[...] = result
        return out

    return arrays, store


def _shape(name: str, shape: Sequence[int], data_format: str, ndim: int) -> Index:
    """A shape argument as a tuple, channels last."""
    sizes = _ints(name, shape, ndim, 0)
    return sizes if data_format == "channels_last" else (sizes[0], *sizes[2:], sizes[1])


def _expect(name: str, array: Array, shape: Index) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape} (channels last); got {array.shape}")


def _activate(y: Array, activation: str | None) -> Array:
    if activation not in (None, "relu"):
        raise ValueError(f"activation must be None or 'relu'; got {activation!r}")
    return y if activation is None else np.maximum(y, 0)


# ---- the three sums: one loop, three roles ----------------------------------------------------


def _groups(w: Array, groups: int) -> Iterator[tuple[slice, slice]]:
    """(channels, filters) of each group: filters f see only channels c."""
    size_c, size_f = w.shape[-2], w.shape[-1] // groups
    for g in range(groups):
        yield slice(g * size_c, (g + 1) * size_c), slice(g * size_f, (g + 1) * size_f)


@np.errstate(all="ignore")
def _add_output(y: Array, x: Array, w: Array, grid: _Grid, groups: int) -> None:
    """y[i] += x[h] w[u]: the cell under each tap, weighed by that tap."""
    for i, u, h in grid.steps():
        for n in range(len(x)):
            for c, f in _groups(w, groups):
                y[n, *i, f] += x[n, *h, c] @ w[*u, :, f]


@np.errstate(all="ignore")
def _add_input_grad(dx: Array, dy: Array, w: Array, grid: _Grid, groups: int) -> None:
    """dx[h] += w[u] dy[i]: the error of a pixel goes back through the tap it came by."""
    for i, u, h in grid.steps():
        for n in range(len(dx)):
            for c, f in _groups(w, groups):
                dx[n, *h, c] += w[*u, :, f] @ dy[n, *i, f]


@np.errstate(all="ignore")
def _add_kernel_grad(dw: Array, x: Array, dy: Array, grid: _Grid, groups: int) -> None:
    """dw[u] += x[h] dy[i]: what a tap saw, times the error of the pixel it saw it for."""
    for i, u, h in grid.steps():
        for n in range(len(x)):
            for c, f in _groups(dw, groups):
                dw[*u, :, f] += x[n, *h, c, None] * dy[n, *i, f]


def _bias_grad(dy: Array) -> Array:
    """Db = the sum of dy over all pixels: the bias was added at each of them."""
    db = np.zeros(dy.shape[-1:], dy.dtype)
    for i in np.ndindex(dy.shape[:-1]):
        db += dy[i]
    return db


def _needed(need: Iterable[str]) -> set[str]:
    if not set(need) <= {"x", "w", "b"}:
        raise ValueError(f"need may hold 'x', 'w' and 'b'; got {need!r}")
    return set(need)


# ---- convolution ------------------------------------------------------------------------------


def conv(
    x: Array, w: Array, b: Array | None = None, *, stride: Ints = 1, padding: Padding = 0,
    dilation: Ints = 1, groups: int = 1, data_format: str = "channels_last",
    activation: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolution (without flipping w, as in all of deep learning): equation (1).

        y[n, i, j, f] = b[f] + sum_uvc x[n, i*s + u*d - lo, j*s + v*d - lo, c] w[u, v, c, f]

    With G groups, the g-th F/G filters see only the g-th C/G channels.

    Parameters
    ----------
    x : (m, H, W, C)
    w : (KH, KW, C/G, F)
    b : (F,), optional

    Returns
    -------
    y : (m, OH, OW, F), with OH the number of windows that fit whole into the padded height

    Examples
    --------
    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> conv(x, np.ones((2, 2, 1, 1)))[0, :, :, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    (x, w, b), store = _load(data_format, out, x=x, w=w, b=b)
    grid, y_shape = _conv_grid(x.shape, w.shape, stride, padding, dilation, groups)
    y = np.zeros(y_shape, x.dtype)
    _add_output(y, x, w, grid, groups)
    if b is not None:
        _expect("b", b, y_shape[-1:])
        y += b
    return store(_activate(y, activation))


def conv_input_grad(
    dy: Array, w: Array, x_shape: Sequence[int], *, stride: Ints = 1, padding: Padding = 0,
    dilation: Ints = 1, groups: int = 1, data_format: str = "channels_last",
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Gradient with respect to x: how the delta of a layer reaches the layer below.

        dx[n, h, c] = sum over the pixels i and taps u that met at h = i*s + u*d - lo
                      and over f of dy[n, i, f] w[u, c, f]

    At stride 1 this is the full convolution of dy with w flipped on its spatial axes and with
    channels and filters exchanged. A cell that no window touched gets zero.

    Parameters
    ----------
    dy : (m, OH, OW, F)
    w : (KH, KW, C/G, F)
    x_shape : shape of x, which dy and w do not determine (a stride may leave cells over)

    Returns
    -------
    dx : (m, H, W, C)

    Examples
    --------
    >>> conv_input_grad(np.ones((1, 2, 2, 1)), np.ones((2, 2, 1, 1)), (1, 3, 3, 1))[0, :, :, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    (dy, w), store = _load(data_format, out, dy=dy, w=w)
    shape = _shape("x_shape", x_shape, data_format, w.ndim)
    grid, y_shape = _conv_grid(shape, w.shape, stride, padding, dilation, groups)
    _expect("dy", dy, y_shape)
    dx = np.zeros(shape, dy.dtype)
    _add_input_grad(dx, dy, w, grid, groups)
    return store(dx)


def conv_kernel_grad(
    x: Array, dy: Array, w_shape: Sequence[int], *, stride: Ints = 1, padding: Padding = 0,
    dilation: Ints = 1, groups: int = 1, data_format: str = "channels_last",
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Gradient with respect to w, equation (11): convolution of the input with the delta.

        dw[u, c, f] = sum_ni dy[n, i, f] x[n, i*s + u*d - lo, c]

    Parameters
    ----------
    x : (m, H, W, C)
    dy : (m, OH, OW, F)
    w_shape : (KH, KW, C/G, F)

    Returns
    -------
    dw : (KH, KW, C/G, F)

    Examples
    --------
    >>> x, dy = np.arange(9.0).reshape(1, 3, 3, 1), np.ones((1, 2, 2, 1))
    >>> conv_kernel_grad(x, dy, (2, 2, 1, 1))[:, :, 0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    (x, dy), store = _load(data_format, out, x=x, dy=dy)
    shape = _ints("w_shape", w_shape, x.ndim, 0)
    grid, y_shape = _conv_grid(x.shape, shape, stride, padding, dilation, groups)
    _expect("dy", dy, y_shape)
    dw = np.zeros(shape, x.dtype)
    _add_kernel_grad(dw, x, dy, grid, groups)
    return store(dw, image=False)


def conv_backward(
    dy: Array, x: Array, w: Array, *, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    groups: int = 1, data_format: str = "channels_last", need: Iterable[str] = ("x", "w", "b"),
) -> ConvGrads:  # fmt: skip
    """All gradients of a convolution; ``db[f]`` is the sum of dy over images and pixels.

    Parameters
    ----------
    dy : (m, OH, OW, F), with respect to the output before the activation: equation (10)
    x : (m, H, W, C)
    w : (KH, KW, C/G, F)
    need : which of "x", "w", "b" to compute; the others are None

    Returns
    -------
    ConvGrads(dx, dw, db)

    Examples
    --------
    >>> x, w = np.ones((2, 5, 5, 3)), np.ones((3, 3, 3, 4))
    >>> [g.shape for g in conv_backward(conv(x, w), x, w)]
    [(2, 5, 5, 3), (3, 3, 3, 4), (4,)]
    """
    (dy, x, w), store = _load(data_format, dy=dy, x=x, w=w)
    grid, y_shape = _conv_grid(x.shape, w.shape, stride, padding, dilation, groups)
    _expect("dy", dy, y_shape)
    need, dx, dw = _needed(need), np.zeros_like(x), np.zeros_like(w)
    if "x" in need:
        _add_input_grad(dx, dy, w, grid, groups)
    if "w" in need:
        _add_kernel_grad(dw, x, dy, grid, groups)
    return ConvGrads(
        store(dx) if "x" in need else None,
        store(dw, image=False) if "w" in need else None,
        store(_bias_grad(dy), image=False) if "b" in need else None,
    )


def conv_transpose(
    x: Array, w: Array, b: Array | None = None, *, stride: Ints = 1, padding: Padding = 0,
    output_padding: Ints = 0, dilation: Ints = 1, groups: int = 1,
    data_format: str = "channels_last", activation: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The input gradient of a convolution, used as a layer: each pixel of x paints w onto y.

        y[n, i*s + u*d - lo, f] += x[n, i, c] w[u, f, c]          and + b[f]

    Parameters
    ----------
    x : (m, H, W, C)
    w : (KH, KW, F/G, C), the kernel of the convolution from y to x
    b : (F,), optional
    output_padding : cells added to the high side of y; less than stride or dilation

    Returns
    -------
    y : (m, OH, OW, F), OH = (H - 1)*s - lo - hi + eff + output_padding; H*s when "same"

    Examples
    --------
    >>> conv_transpose(np.ones((1, 2, 1)), np.array([[[1.0]], [[2.0]], [[3.0]]]), stride=2)[0, :, 0]
    array([1., 2., 4., 2., 3.])
    """
    (x, w, b), store = _load(data_format, out, x=x, w=w, b=b)
    grid, y_shape = _transposed_grid(
        x.shape, w.shape, stride, padding, output_padding, dilation, groups
    )
    y = np.zeros(y_shape, x.dtype)
    _add_input_grad(y, x, w, grid, groups)
    if b is not None:
        _expect("b", b, y_shape[-1:])
        y += b
    return store(_activate(y, activation))


def conv_transpose_backward(
    dy: Array, x: Array, w: Array, *, stride: Ints = 1, padding: Padding = 0,
    output_padding: Ints = 0, dilation: Ints = 1, groups: int = 1,
    data_format: str = "channels_last", need: Iterable[str] = ("x", "w", "b"),
) -> ConvGrads:  # fmt: skip
    """All gradients of `conv_transpose`: the roles of x and dy exchanged.

    The transposed convolution is a convolution's input gradient, so its own input gradient is
    that convolution, ``dx = conv(dy, w)``, and w's gradient pairs dy, as image, with x, as delta.

    Parameters
    ----------
    dy : (m, OH, OW, F), before the activation
    x : (m, H, W, C)
    w : (KH, KW, F/G, C)
    need : which of "x", "w", "b" to compute; the others are None

    Returns
    -------
    ConvGrads(dx, dw, db)

    Examples
    --------
    >>> x, w = np.ones((2, 3, 3, 4)), np.ones((2, 2, 3, 4))
    >>> [g.shape for g in conv_transpose_backward(conv_transpose(x, w), x, w)]
    [(2, 3, 3, 4), (2, 2, 3, 4), (3,)]
    """
    (dy, x, w), store = _load(data_format, dy=dy, x=x, w=w)
    grid, y_shape = _transposed_grid(
        x.shape, w.shape, stride, padding, output_padding, dilation, groups
    )
    _expect("dy", dy, y_shape)
    need, dx, dw = _needed(need), np.zeros_like(x), np.zeros_like(w)
    if "x" in need:
        _add_output(dx, dy, w, grid, groups)
    if "w" in need:
        _add_kernel_grad(dw, dy, x, grid, groups)
    return ConvGrads(
        store(dx) if "x" in need else None,
        store(dw, image=False) if "w" in need else None,
        store(_bias_grad(dy), image=False) if "b" in need else None,
    )


# ---- pooling ----------------------------------------------------------------------------------


@np.errstate(invalid="ignore")
def max_pool(
    x: Array, window: Ints, *, stride: Ints | None = None, padding: Padding = 0,
    dilation: Ints = 1, ceil_mode: bool = False, return_argmax: bool = False,
    data_format: str = "channels_last", out: Array | None = None,
) -> Array | tuple[Array, Array]:  # fmt: skip
    """Largest cell of each window, and where it was: equation (3).

    The first of equal cells wins, and the first NaN wins over everything. The padding is minus
    infinity and never wins; a window with no cell inside x gives -inf and argmax -1.

    Parameters
    ----------
    x : (m, H, W, C)
    window : (KH, KW)
    ceil_mode : keep a last window that sticks out, unless it would start in the high padding

    Returns
    -------
    y : (m, OH, OW, C)
    argmax : int64, shape of y, only if ``return_argmax``: the winner's flat position h*W + w

    Examples
    --------
    >>> y, argmax = max_pool(np.array([[[3.0], [7.0], [5.0], [5.0]]]), 2, return_argmax=True)
    >>> y[0, :, 0], argmax[0, :, 0]
    (array([7., 5.]), array([1, 2]))
    """
    (x,), store = _load(data_format, out, x=x)
    grid = _grid(x.shape, window, stride, padding, dilation, ceil_mode, pool=True)
    y = np.full((len(x), *grid.pixels, x.shape[-1]), -np.inf, x.dtype)
    argmax = np.full(y.shape, -1, np.int64)
    for i, _, h in grid.steps():
        position = np.ravel_multi_index(h, grid.sizes)
        for n in range(len(x)):
            cell, best = x[n, *h], y[n, *i]  # (C,) each
            wins = (argmax[n, *i] < 0) | (cell > best) | (np.isnan(cell) & ~np.isnan(best))
            y[n, *i] = np.where(wins, cell, best)
            argmax[n, *i] = np.where(wins, position, argmax[n, *i])
    result = store(y)
    if not return_argmax:
        return result
    _, turn = _load(data_format, x=x)
    return result, turn(argmax, dtype=np.int64)


def max_pool_backward(
    dy: Array, argmax: Array, x_shape: Sequence[int], window: Ints, *, stride: Ints | None = None,
    padding: Padding = 0, dilation: Ints = 1, ceil_mode: bool = False,
    data_format: str = "channels_last", out: Array | None = None,
) -> Array:  # fmt: skip
    """Each window's error goes to its winner, equation (9); every other cell gets exactly zero.

    Windows may overlap: a cell that won several times collects the errors of all of them.

    Parameters
    ----------
    dy : (m, OH, OW, C)
    argmax : (m, OH, OW, C) int64, from `max_pool`; the error of a window with -1 goes nowhere
    x_shape : shape of x
    window : (KH, KW)

    Returns
    -------
    dx : (m, H, W, C)

    Examples
    --------
    >>> dy, argmax = np.array([[[0.5], [0.25]]]), np.array([[[1], [2]]])
    >>> max_pool_backward(dy, argmax, (1, 4, 1), 2)[0, :, 0]
    array([0.  , 0.5 , 0.25, 0.  ])
    """
    (dy,), store = _load(data_format, out, dy=dy)
    shape = _shape("x_shape", x_shape, data_format, dy.ndim)
    grid = _grid(shape, window, stride, padding, dilation, ceil_mode, pool=True)
    argmax = np.asarray(argmax)
    argmax = np.moveaxis(argmax, 1, -1) if data_format == "channels_first" else argmax
    _expect("dy", dy, (shape[0], *grid.pixels, shape[-1]))
    _expect("argmax", argmax, dy.shape)
    cells = int(np.prod(grid.sizes))
    if argmax.dtype.kind != "i" or np.any((argmax < -1) | (argmax >= cells)):
        raise ValueError(f"argmax must hold integers from -1 to {cells - 1}")
    dx = np.zeros(shape, dy.dtype)
    for n, *i, c in np.ndindex(dy.shape):
        winner = argmax[n, *i, c]
        if winner >= 0:
            dx[n, *np.unravel_index(winner, grid.sizes), c] += dy[n, *i, c]
    return store(dx)


def avg_pool(
    x: Array, window: Ints, *, stride: Ints | None = None, padding: Padding = 0,
    dilation: Ints = 1, ceil_mode: bool = False, count_include_pad: bool = False,
    data_format: str = "channels_last", out: Array | None = None,
) -> Array:  # fmt: skip
    """Mean of each window: the sum of its cells inside x, divided by a count.

    The count is of the window's cells inside x, or, with ``count_include_pad``, inside the padded
    x. A window with no cell inside x gives 0.

    Parameters
    ----------
    x : (m, H, W, C)
    window : (KH, KW)
    ceil_mode : keep a last window that sticks out, unless it would start in the high padding

    Returns
    -------
    y : (m, OH, OW, C)

    Examples
    --------
    >>> avg_pool(np.array([[[3.0], [7.0], [5.0]]]), 2, ceil_mode=True)[0, :, 0]
    array([5., 5.])
    """
    (x,), store = _load(data_format, out, x=x)
    grid = _grid(x.shape, window, stride, padding, dilation, ceil_mode, pool=True)
    y = np.zeros((len(x), *grid.pixels, x.shape[-1]), x.dtype)
    for i, _, h in grid.steps():
        for n in range(len(x)):
            y[n, *i] += x[n, *h]
    for i in np.ndindex(grid.pixels):
        y[:, *i] /= max(grid.count(i, count_include_pad), 1)
    return store(y)


def avg_pool_backward(
    dy: Array, x_shape: Sequence[int], window: Ints, *, stride: Ints | None = None,
    padding: Padding = 0, dilation: Ints = 1, ceil_mode: bool = False,
    count_include_pad: bool = False, data_format: str = "channels_last", out: Array | None = None,
) -> Array:  # fmt: skip
    """Each window's error is spread evenly: every cell inside x gets dy divided by the count.

    Shares are added in the scan order of the windows, each after its division.

    Parameters
    ----------
    dy : (m, OH, OW, C)
    x_shape : shape of x
    window : (KH, KW)

    Returns
    -------
    dx : (m, H, W, C)

    Examples
    --------
    >>> avg_pool_backward(np.array([[[1.0], [4.0]]]), (1, 4, 1), 2)[0, :, 0]
    array([0.5, 0.5, 2. , 2. ])
    """
    (dy,), store = _load(data_format, out, dy=dy)
    shape = _shape("x_shape", x_shape, data_format, dy.ndim)
    grid = _grid(shape, window, stride, padding, dilation, ceil_mode, pool=True)
    _expect("dy", dy, (shape[0], *grid.pixels, shape[-1]))
    counts = {i: grid.count(i, count_include_pad) for i in np.ndindex(grid.pixels)}
    dx = np.zeros(shape, dy.dtype)
    for i, _, h in grid.steps():
        for n in range(len(dx)):
            dx[n, *h] += dy[n, *i] / counts[i]
    return store(dx)


# ---- the convolution as a matrix product ------------------------------------------------------


def im2col(
    x: Array, window: Ints, *, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    data_format: str = "channels_last",
) -> Array:  # fmt: skip
    """What each window sees, as one row per pixel: ``conv(x, w)`` is ``im2col(x) @ w`` then.

    Parameters
    ----------
    x : (m, H, W, C)
    window : (KH, KW)

    Returns
    -------
    cols : (m, OH, OW, KH*KW*C) in both data formats: taps in row-major order, channels innermost;
        zero where the window is over the padding

    Examples
    --------
    >>> im2col(np.array([[[1.0], [2.0], [3.0]]]), 2)[0]
    array([[1., 2.],
           [2., 3.]])
    """
    (x,), store = _load(data_format, x=x)
    grid = _grid(x.shape, window, stride, padding, dilation)
    cols = np.zeros((len(x), *grid.pixels, *grid.window, x.shape[-1]), x.dtype)
    for i, u, h in grid.steps():
        for n in range(len(x)):
            cols[n, *i, *u] = x[n, *h]
    return store(cols.reshape(len(x), *grid.pixels, np.prod(cols.shape[-x.ndim + 1:])), image=False)


def col2im(
    cols: Array, x_shape: Sequence[int], window: Ints, *, stride: Ints = 1, padding: Padding = 0,
    dilation: Ints = 1, data_format: str = "channels_last",
) -> Array:  # fmt: skip
    """Adjoint of `im2col`: put every row back where it came from; overlapping taps add up.

    Parameters
    ----------
    cols : (m, OH, OW, KH*KW*C)
    x_shape : shape of x
    window : (KH, KW)

    Returns
    -------
    x : (m, H, W, C)

    Examples
    --------
    >>> col2im(np.array([[[1.0, 2.0], [2.0, 3.0]]]), (1, 3, 1), 2)[0, :, 0]
    array([1., 4., 3.])
    """
    (cols,), store = _load(data_format, cols=cols)
    shape = _shape("x_shape", x_shape, data_format, cols.ndim)
    grid = _grid(shape, window, stride, padding, dilation)
    _expect("cols", cols, (shape[0], *grid.pixels, int(np.prod(grid.window)) * shape[-1]))
    cols = cols.reshape(shape[0], *grid.pixels, *grid.window, shape[-1])
    x = np.zeros(shape, cols.dtype)
    for i, u, h in grid.steps():
        for n in range(len(x)):
            x[n, *h] += cols[n, *i, *u]
    return store(x)
