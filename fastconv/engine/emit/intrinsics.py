"""The kernels as intrinsics of the loops: operands by address, tiles by the type of an argument."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.engine.emit.kinds import KINDS
from fastconv.engine.emit.pool import (
    ErrorOperands,
    PoolOperands,
    PoolTile,
    emit_errors,
    emit_reduce,
    emit_scatter,
)
from fastconv.engine.emit.product import Operands, TileShape, emit_product
from fastconv.engine.emit.sums import emit_mask, emit_plane_sums
from fastconv.engine.emit.values import I64, PTR

__all__ = [
    "columns_of", "mask_elements", "plane_sums", "pool_errors", "pool_kind", "pool_load",
    "pool_reduce", "pool_scatter", "pool_store", "product",
]  # fmt: skip


@intrinsic
def columns_of(typingctx, tile):
    """NR: columns of a tile of `product`."""
    columns = KINDS[len(tile[4])].columns(len(tile[2]), len(tile[3]))

    def codegen(context, builder, signature, args):
        return I64(columns)

    return types.int64(tile), codegen


@intrinsic
def pool_kind(typingctx, tile):
    """What a tile of a pooling computes: MAX, ARGMAX, ..."""

    def codegen(context, builder, signature, args):
        return I64(len(tile[1]))

    return types.int64(tile), codegen


@intrinsic
def product(typingctx, tile, half, k, left, right, result, ending):
    """One tile by the micro-kernel; `emit.product` has the contract.

    Parameters
    ----------
    tile : tuple
        Its type is the tile: tuples of MR, of the smaller tile's rows, of NV and VL zeros, of as
        many zeros as the kind's number, and a zero of the computing dtype.
    half : int
        A literal: 1 for the smaller tile.
    k : int
    left, right, result, ending : tuple of int
        ``(a, row, red)``, ``(b, b_step)``, ``(c, c_row, cols)`` and ``(bias, accumulate, relu)``.
    """
    rows = tile[half.literal_value] if isinstance(half, types.IntegerLiteral) else None
    if rows is None:
        return None
    groups = [types.UniTuple(types.int64, n) for n in (3, 2, 3, 3)]

    def codegen(context, builder, signature, args):
        element = context.get_value_type(tile[5])
        shape = TileShape(len(rows), len(tile[2]), len(tile[3]), element, KINDS[len(tile[4])])
        left, right, result, ending = (
            cgutils.unpack_tuple(builder, group, len(kind))
            for group, kind in zip(args[3:], groups, strict=True)
        )
        emit_product(builder, shape, Operands(args[2], *left, *right, *result, *ending))
        return context.get_dummy_value()

    return types.void(tile, half, types.int64, *groups), codegen


def _pool_tile(context: Any, tile: Any, shift: Any) -> PoolTile:
    lanes = max(1, len(tile[0]) >> shift.literal_value)
    spacing = len(tile[3]) if lanes > 1 else 0
    return PoolTile(
        lanes, context.get_value_type(tile[2]), len(tile[1]), spacing, half=len(tile[4]) > 0
    )


@intrinsic
def pool_load(typingctx, tile, at):
    """The element at address `at`, in the computing dtype."""

    def codegen(context, builder, signature, args):
        at = builder.inttoptr(args[1], PTR)
        element = context.get_value_type(tile[2])
        if not len(tile[4]):
            return builder.load(at, align=1, typ=element)
        return builder.fpext(builder.load(at, align=1, typ=ir.HalfType()), element)

    return tile[2](tile, types.int64), codegen


@intrinsic
def pool_store(typingctx, tile, at, value):
    """Write an element of the computing dtype to address `at`, rounded if it is wider there."""

    def codegen(context, builder, signature, args):
        value = builder.fptrunc(args[2], ir.HalfType()) if len(tile[4]) else args[2]
        builder.store(value, builder.inttoptr(args[1], PTR), align=1)
        return context.get_dummy_value()

    return types.void(tile, types.int64, value), codegen


@intrinsic
def pool_reduce(typingctx, tile, shift, window, x, y, argmax, cell, size):
    """One tile of a pooling by `emit.pool.emit_reduce`; not 0 if a NaN was met.

    Parameters
    ----------
    tile : tuple
        VL zeros, as many zeros as the kind's number, minus infinity in the computing dtype, as many
        zeros as lanes are spaced apart, and a zero if elements are of 16 bits in memory.
    shift : int
        A literal: the tile has max(1, VL >> shift) lanes.
    window, x, y, argmax, cell : tuple of int
        ``(offsets, cells, count)``, ``(x, x_step, left)``, ``(y, y_step)``,
        ``(argmax, argmax_step)`` and ``(cell, cell_step)``.
    size : int
        Divisor of means.
    """
    if not isinstance(shift, types.IntegerLiteral):
        return None
    groups = [types.UniTuple(types.int64, n) for n in (3, 3, 2, 2, 2)]

    def codegen(context, builder, signature, args):
        shape = _pool_tile(context, tile, shift)
        (offsets, cells, count), (at, at_step, left), *others = (
            cgutils.unpack_tuple(builder, group, len(kind))
            for group, kind in zip(args[2:7], groups, strict=True)
        )
        size = builder.sitofp(args[7], shape.element)
        (y, y_step), (winner, winner_step), (first, step) = others
        return emit_reduce(builder, shape, PoolOperands(
            count, offsets, cells, at, at_step, left, y, y_step, winner, winner_step, first, step,
            size,
        ))  # fmt: skip

    return types.int64(tile, shift, *groups, types.int64), codegen


@intrinsic
def pool_errors(typingctx, tile, shift, window, dy, dx, argmax, cell, size):
    """One vector of errors by `emit.pool.emit_errors`, of max(1, VL >> shift) lanes.

    `shift` is a literal, `window` is ``(offsets, cells, count)``.
    """
    if not isinstance(shift, types.IntegerLiteral):
        return None
    triple = types.UniTuple(types.int64, 3)

    def codegen(context, builder, signature, args):
        shape = _pool_tile(context, tile, shift)
        offsets, cells, count = cgutils.unpack_tuple(builder, args[2], 3)
        size = builder.sitofp(args[7], shape.element)
        return emit_errors(builder, shape, ErrorOperands(count, offsets, cells, *args[3:7], size))

    return types.int64(tile, shift, triple, *(types.int64,) * 5), codegen


@intrinsic
def pool_scatter(typingctx, tile, dy, argmax, C, dx, pixel):
    """The errors of a pixel's C channels to their winners by `emit.pool.emit_scatter`."""

    def codegen(context, builder, signature, args):
        emit_scatter(builder, context.get_value_type(tile[2]), *args[1:])
        return context.get_dummy_value()

    return types.void(tile, *(types.int64,) * 5), codegen


@intrinsic
def mask_elements(typingctx, dy, y, to, lanes, like):
    """`lanes` (a literal) elements of dy where y is positive by `emit.sums.emit_mask`."""
    if not isinstance(lanes, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        element = context.get_value_type(signature.args[4])
        emit_mask(builder, element, lanes.literal_value, *args[:3])
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 3, lanes, like), codegen


@intrinsic
def plane_sums(typingctx, at, step, count, to, planes, like):
    """Sums of `planes` (a literal) channels over pixels by `emit.sums.emit_plane_sums`."""
    if not isinstance(planes, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        element = context.get_value_type(signature.args[5])
        emit_plane_sums(builder, element, planes.literal_value, *args[:4])
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4, planes, like), codegen
