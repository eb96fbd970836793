"""Gather and scatter: between a caller's array of any kind and private, padded, native scratch.

The gather does the padding, the data format, the strides, the byte order and the dtype of one box
at a time, so that no full-size copy of an operand exists. A view is a table of int64: address,
five strides in bytes (n, d, h, w, c), and a kind.
"""

from __future__ import annotations

import numpy as np

from fastconv.compiler.inner import inner
from fastconv.engine import words as s
from fastconv.engine.emit.memory import (
    copy_bytes,
    load_bits,
    move_16_bytes,
    store_bits,
    swap_bytes,
    to_bits,
    to_float,
    word,
    words,
    zero_bytes,
)

__all__ = ["copy_short", "gather", "scatter"]


@inner
def half_to_float(bits):
    """Bits of IEEE binary16 to those of binary32, exactly: not all processors can do it."""
    sign = (bits & 0x8000) << 16
    exponent = (bits >> 10) & 31
    fraction = bits & 0x3FF
    if exponent == 0:  # a multiple of 2**-24
        magnitude = to_bits(np.float32(fraction) * np.float32(2.0**-24))
    elif exponent == 31:
        magnitude = 0x7F800000 | (fraction << 13)
    else:
        magnitude = ((exponent + 112) << 23) | (fraction << 13)
    return sign | magnitude


@inner
def float_to_half(bits):
    """Bits of IEEE binary32 to those of binary16, rounded to nearest, ties to even."""
    sign = (bits >> 16) & 0x8000
    bits &= 0x7FFFFFFF
    if bits > 0x7F800000:
        half = 0x7E00  # NaN
    elif bits >= 0x477FF000:
        half = 0x7C00  # rounds to infinity
    elif bits < 0x38800000:  # subnormal: adding 0.5 rounds to a multiple of 2**-24
        half = to_bits(to_float(bits) + np.float32(0.5)) - 0x3F000000
    else:
        half = (bits - (112 << 23) + 0xFFF + ((bits >> 13) & 1)) >> 13
    return sign | half


@inner
def copy_short(to, at, nbytes):
    """Copy a few bytes, for which a call of memcpy costs more than the copy."""
    i = 0
    while i + 32 <= nbytes:
        move_16_bytes(to + i, at + i)
        move_16_bytes(to + i + 16, at + i + 16)
        i += 32
    if i + 16 <= nbytes:
        move_16_bytes(to + i, at + i)
        i += 16
    while i < nbytes:
        store_bits(to + i, 32, load_bits(at + i, 32))
        i += 4


@inner
def _copy_strided(to, to_step, at, at_step, n, kind):
    """Copy `n` elements of any kind, with steps in bytes."""
    if kind == s.PLAIN_4:
        for i in range(n):
            store_bits(to + i * to_step, 32, load_bits(at + i * at_step, 32))
    elif kind == s.PLAIN_8:
        for i in range(n):
            store_bits(to + i * to_step, 64, load_bits(at + i * at_step, 64))
    elif kind == s.SWAPPED_4:
        for i in range(n):
            bits = swap_bytes(load_bits(at + i * at_step, 32)) >> 32
            store_bits(to + i * to_step, 32, bits)
    elif kind == s.SWAPPED_8:
        for i in range(n):
            store_bits(to + i * to_step, 64, swap_bytes(load_bits(at + i * at_step, 64)))
    else:
        for i in range(n):
            bits = load_bits(at + i * at_step, 16)
            if kind == s.HALF_SWAPPED:
                bits = ((bits & 255) << 8) | (bits >> 8)
            store_bits(to + i * to_step, 32, half_to_float(bits))


@inner
def _row(to, at, w_steps, c_step, kind, width, channels, block, size):
    """`width` pixels of `channels` elements; zeros up to `block`."""
    to_step, at_step = w_steps
    if channels < block:
        zero_bytes(to, width * to_step)
    if kind <= s.PLAIN_8 and c_step == size:
        if at_step == to_step and channels == block:
            copy_bytes(to, at, width * to_step)
        else:
            for w in range(width):
                copy_short(to + w * to_step, at + w * at_step, channels * size)
    else:
        for c in range(channels):
            _copy_strided(to + c * size, to_step, at + c * c_step, at_step, width, kind)


@inner
def gather(to, steps, view, origin, extent, sizes, outside, channels, size):
    """Copy a box of a view to scratch; zeros, or copies of cells, where the box leaves the array.

    Parameters
    ----------
    to : int
        Address of the scratch.
    steps : (n, d, h, w, plane)
        Its steps in bytes. Channels lie in planes of `block` channels; ``w = block*size``.
    view : int
        Address of the view's table.
    origin, extent : (n, d, h, w)
        The box; the origin may be negative and the box reach beyond the array (d, h, w).
    sizes : (d, h, w)
        The array's spatial extents.
    outside : (d, h, w)
        Zeros; or of each axis the address of an int64, such that the i-th from there says of which
        cell the i-th is a copy. Those before it are for an i below 0.
    channels : (groups, per_group, block, first)
        Every group starts a new plane; the last plane of a group is filled up with zeros. The
        first channel that is copied.
    size : int
        Bytes of an element of the computing dtype.
    """
    step_w, step_plane = steps[3], steps[4]
    groups, per_group, block, skipped = channels
    planes = (per_group + block - 1) // block
    base, sn, sd, sh, sw, sc = words(view, 0, 6)
    base += skipped * sc
    kind = word(view, 6)
    d0, h0, w0 = origin[1], origin[2], origin[3]
    width = extent[3]
    first = min(max(0, -w0), width)
    last = max(first, min(width, sizes[2] - w0))
    copied = outside[0] != 0
    for n in range(extent[0]):
        for d in range(extent[1]):
            for h in range(extent[2]):
                line = to + n * steps[0] + d * steps[1] + h * steps[2]
                depth, row = d0 + d, h0 + h
                if copied:
                    depth, row = word(outside[0], depth), word(outside[1], row)
                inside = 0 <= depth < sizes[0] and 0 <= row < sizes[1] and first < last
                at = base + (origin[0] + n) * sn + depth * sd + row * sh
                for p in range(groups * planes):
                    plane = line + p * step_plane
                    w, end = first, last
                    if copied:
                        w, end = 0, width
                    elif not inside:
                        zero_bytes(plane, width * step_w)
                        continue
                    else:
                        if first > 0:
                            zero_bytes(plane, first * step_w)
                        if last < width:
                            zero_bytes(plane + last * step_w, (width - last) * step_w)
                    c = p // planes * per_group + p % planes * block
                    count = min(block, per_group - p % planes * block)
                    while w < end:  # what lies inside at once, copies of cells one by one
                        cells, source = last - first, w0 + w
                        if w != first or cells == 0:
                            cells, source = 1, word(outside[2], source)
                        _row(plane + w * step_w, at + source * sw + c * sc, (step_w, sw), sc, kind,
                             cells, count, block, size)  # fmt: skip
                        w += cells


@inner
def scatter(view, base, offsets, pixels, scratch, channels, line, size):
    """Write the ``(pixels, channels)`` results in scratch to a view that is not written in place.

    `base` is the address of the box in the view and `offsets` the pixels' offsets from it; a pixel
    takes `line` bytes of the scratch.
    """
    sc, kind = word(view, 5), word(view, 6)
    for c in range(channels):
        to, at = base + c * sc, scratch + c * size
        if kind == s.PLAIN_4:
            for p in range(pixels):
                store_bits(to + word(offsets, p), 32, load_bits(at + p * line, 32))
        elif kind == s.PLAIN_8:
            for p in range(pixels):
                store_bits(to + word(offsets, p), 64, load_bits(at + p * line, 64))
        else:
            for p in range(pixels):
                half = float_to_half(load_bits(at + p * line, 32))
                store_bits(to + word(offsets, p), 16, half)
