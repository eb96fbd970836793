"""Products and poolings as calls that are kept: made of such arrays, for others like them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.engine import words as s
from fastconv.engine.call import Call
from fastconv.engine.kept import KeptCall
from fastconv.engine.pools import Pools
from fastconv.engine.products import Convolution, KernelGradient
from fastconv.engine.tables.workspace import address_of, lines

__all__ = ["pool_call", "product_call"]


def product_call(
    product: Convolution | KernelGradient, *operands: np.ndarray | None, relu: bool = False
) -> KeptCall | None:
    """A product on one thread; None where its operands must be copied first.

    Parameters
    ----------
    product : Convolution or KernelGradient
    operands : ndarray or None
        ``x, w, b, y`` or ``dy, w, None, dx`` or ``x, dy, dw``, seen as channels last.
    relu : bool
        Whether what is negative becomes 0.
    """
    if isinstance(product, KernelGradient):
        return _gradient_call(product, *operands)
    return _convolution_call(product, relu, *operands)


def _convolution_call(
    product: Convolution, relu: bool, source: Any, w: Any, b: Any, target: Any
) -> KeptCall | None:
    choice, dtype = product.choice, product.dtype
    if not _plain(dtype, *(a for a in (w, b) if a is not None)):
        return None
    zeros = (0, 0)
    if not choice.complete:
        if b is not None or not choice.lattice.phases or not _plain(target.dtype, target):
            return None
        zeros = 4, target.nbytes
    call = product.call(0, source, w, None, relu, target, 1)
    scratch = product.shared_nbytes + product.prepared_for(source, 1).scratch_bytes
    places = [(s.SCRATCH, 0), (s.SOURCE, 1), (s.TARGET, 4), (s.KERNEL, 2), (s.PACKED, 0),
              (s.PRIOR, 0)]  # fmt: skip
    call = _without(call, (s.SOURCE, source), (s.TARGET, target), (s.KERNEL, w))
    repeat = (0, 0, 0, 0)
    if b is not None and choice.in_rows:
        starts = lines(scratch, b.nbytes * choice.columns)
        repeat = (b.size, choice.columns, b.itemsize, starts[1])
        scratch = starts[2]
        call = _with(call, s.BIAS, starts[1])
        places.append((s.BIAS, 0))
    elif b is not None:
        places.append((s.BIAS, 3))
    return KeptCall(call, (source, w, b, target), places, scratch, (), zeros=zeros, repeat=repeat,
                    alive=product)  # fmt: skip


def _gradient_call(product: KernelGradient, x: Any, dy: Any, dw: Any) -> KeptCall | None:
    if not _plain(product.dtype, dw):
        return None
    call = product.call(0, x, dy, dw)
    scratch = product.shared_nbytes + product.prepared_for(x, dy).scratch_bytes
    call = _without(call, (s.SOURCE, x), (s.TARGET, dy), (s.RESULT, dw))
    places = [(s.SCRATCH, 0), (s.SOURCE, 1), (s.TARGET, 2), (s.RESULT, 3)]
    if product.choice.parts > 1:
        places.append((s.PARTIAL, 0))
    else:
        call = _without(call, (s.PARTIAL, dw))
        places.append((s.PARTIAL, 3))
    return KeptCall(call, (x, dy, dw), places, scratch, (), alive=product)


def pool_call(pools: Pools, name: str, *arrays: np.ndarray | None) -> KeptCall:
    """A pooling on one thread.

    Parameters
    ----------
    pools : Pools
    name : {"max", "argmax", "mean", "scatter", "spread"}
        As of `Pools.later`.
    arrays : ndarray or None
        ``(x, y, argmax or None)``; for the errors, "scatter" and "spread", ``(dy, argmax or None,
        dx)``.
    """
    at = (s.POOL_X, s.POOL_Y, s.POOL_ARGMAX)
    x, y, argmax = arrays
    if name in ("scatter", "spread"):
        at = (s.POOL_Y, s.POOL_ARGMAX, s.POOL_X)
        y, argmax, x = arrays
    if x is None or y is None:
        raise ValueError("x and y, or dx and dy, are needed")
    call = pools.later(0, 1, name, x, y, argmax)
    used = [(word, i) for i, word in enumerate(at) if arrays[i] is not None]
    call = _without(call, *((word, arrays[i]) for word, i in used))
    places = [(s.SCRATCH, 0), *((word, i + 1) for word, i in used)]
    bad = s.POOL_BAD if name == "scatter" else 0
    return KeptCall(call, arrays, places, pools.scratch_bytes, (), bad=bad, alive=pools)


def _plain(dtype: np.dtype, *arrays: np.ndarray) -> bool:
    """Whether arrays are of a dtype and contiguous."""
    return all(a.dtype == dtype and a.flags.c_contiguous for a in arrays)


def _without(call: Call, *addresses: tuple[int, Any]) -> Call:
    """A call without the addresses of arrays in some of its words."""
    for word, array in addresses:
        call = _with(call, word, call.words[word - s.TABLE] - address_of(array))
    return call


def _with(call: Call, word: int, value: int) -> Call:
    words: Sequence[int] = call.words
    i = word - s.TABLE
    return call._replace(words=(*words[:i], value, *words[i + 1 :]))
