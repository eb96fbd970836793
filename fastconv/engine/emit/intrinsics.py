"""What the loops are made of: memory by address, counters, and the micro-kernel, as intrinsics.

An address is an int64. Nothing here checks bounds or alignment, and every access carries the
alignment of one byte, so that unaligned arrays need no path of their own.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.engine.emit.pool import (
    ErrorOperands,
    PoolOperands,
    PoolTile,
    emit_errors,
    emit_reduce,
    emit_scatter,
)
from fastconv.engine.emit.product import Operands, TileShape, emit_product
from fastconv.engine.emit.sums import emit_sums

__all__ = [
    "add_elements", "add_one", "call_entry", "call_sweep", "column_sums", "copy_bytes", "load_bits",
    "load_element", "move_16_bytes", "pool_errors", "pool_reduce", "pool_scatter", "product",
    "store_bits", "store_element", "store_word", "store_words", "swap_bytes", "to_bits",
    "to_float", "wait_for", "wait_until_left", "word", "words", "zero_bytes",
]  # fmt: skip

I64 = ir.IntType(64)
PTR = ir.PointerType()


def _at(builder: Any, address: Any, index: Any = None, step: int = 1) -> Any:
    if index is not None:
        address = builder.add(address, builder.mul(index, I64(step)))
    return builder.inttoptr(address, PTR)


@intrinsic
def word(typingctx, table, i):
    """The i-th int64 of the table at address `table`."""

    def codegen(context, builder, signature, args):
        return builder.load(_at(builder, args[0], args[1], 8), align=8, typ=I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def store_word(typingctx, table, i, value):
    """Write the i-th int64 of the table at address `table`."""

    def codegen(context, builder, signature, args):
        builder.store(args[2], _at(builder, args[0], args[1], 8), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def add_one(typingctx, table, i):
    """Count the i-th int64 of `table` up and return what it was; all threads agree on the order."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _at(builder, args[0], args[1], 8), I64(1), "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def wait_for(typingctx, table, i, value):
    """Wait until other threads have counted the i-th int64 of `table` up to `value`.

    What they wrote before is seen afterwards. They must be running: nothing here wakes one.
    """

    def codegen(context, builder, signature, args):
        at = _at(builder, args[0], args[1], 8)
        look, rest, done = (builder.append_basic_block(n) for n in ("look", "rest", "done"))
        builder.branch(look)
        builder.position_at_end(look)
        count = builder.load_atomic(at, "acquire", 8, typ=I64)
        builder.cbranch(builder.icmp_signed("<", count, args[2]), rest, done)
        builder.position_at_end(rest)
        _pause(builder)
        builder.branch(look)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


# How often a waiting thread looks before it lets others have its processor.
SPINS = 4000


@intrinsic
def wait_until_left(typingctx, table, entered, left):
    """Wait until the word `left` of `table` is what the word `entered` is.

    Threads count `entered` up before they take work and `left` when they find no more. `left` is
    read first: who entered after it was read found no work. What they wrote is seen afterwards.
    """

    def codegen(context, builder, signature, args):
        entered_at, left_at = (_at(builder, args[0], i, 8) for i in args[1:])
        before = builder.block
        look, rest, give, done = (
            builder.append_basic_block(name) for name in ("look", "rest", "give", "done")
        )
        builder.branch(look)
        builder.position_at_end(look)
        spins = builder.phi(I64)
        gone = builder.load_atomic(left_at, "seq_cst", 8, typ=I64)
        come = builder.load_atomic(entered_at, "seq_cst", 8, typ=I64)
        builder.cbranch(builder.icmp_signed("==", gone, come), done, rest)
        builder.position_at_end(rest)
        _pause(builder)
        more = builder.add(spins, I64(1))
        builder.cbranch(builder.icmp_signed("<", more, I64(SPINS)), look, give)
        builder.position_at_end(give)
        _yield(builder)
        builder.branch(look)
        spins.add_incoming(I64(0), before)
        spins.add_incoming(more, rest)
        spins.add_incoming(I64(0), give)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 3), codegen


def _pause(builder: Any) -> None:
    """Tell the processor that this thread is waiting."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        kind = ir.FunctionType(ir.VoidType(), [])
        pause = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause")
        builder.call(pause, [])


def _yield(builder: Any) -> None:
    """Let another thread have the processor, where the C library has a function for it."""
    if os.name == "posix":
        kind = ir.FunctionType(ir.IntType(32), [])
        function = cgutils.get_or_insert_function(builder.module, kind, "sched_yield")
        builder.call(function, [])


@intrinsic
def words(typingctx, table, i, n):
    """A tuple of `n` (a literal) words of a table, from the i-th on."""
    if not isinstance(n, types.IntegerLiteral):
        return None
    result = types.UniTuple(types.int64, n.literal_value)

    def codegen(context, builder, signature, args):
        found = [
            builder.load(_at(builder, args[0], builder.add(args[1], I64(j)), 8), align=8, typ=I64)
            for j in range(n.literal_value)
        ]
        return context.make_tuple(builder, result, found)

    return result(types.int64, types.int64, n), codegen


@intrinsic
def store_words(typingctx, table, i, values):
    """Write a tuple to consecutive words of a table."""

    def codegen(context, builder, signature, args):
        for j, value in enumerate(cgutils.unpack_tuple(builder, args[2], len(values))):
            at = _at(builder, args[0], builder.add(args[1], I64(j)), 8)
            builder.store(value, at, align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.UniTuple(types.int64, len(values))), codegen


@intrinsic
def call_sweep(typingctx, sweep, task):
    """Call the C function ``void sweep(int64 task)`` at an address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def call_entry(typingctx, entry, call, thread):
    """Call the C function ``void entry(int64 call, int64 thread)`` at an address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [args[1], args[2]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def load_bits(typingctx, at, bits):
    """The 16, 32 or 64 bits (a literal) at address `at`, zero-extended."""
    if not isinstance(bits, types.IntegerLiteral):
        return None
    width = ir.IntType(bits.literal_value)

    def codegen(context, builder, signature, args):
        value = builder.load(_at(builder, args[0]), align=1, typ=width)
        return value if width == I64 else builder.zext(value, I64)

    return types.int64(types.int64, bits), codegen


@intrinsic
def store_bits(typingctx, at, bits, value):
    """Write the low 16, 32 or 64 bits (a literal) of `value` to address `at`."""
    if not isinstance(bits, types.IntegerLiteral):
        return None
    width = ir.IntType(bits.literal_value)

    def codegen(context, builder, signature, args):
        value = args[2] if width == I64 else builder.trunc(args[2], width)
        builder.store(value, _at(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, bits, types.int64), codegen


@intrinsic
def load_element(typingctx, at, like):
    """The element at address `at`, of the dtype of `like`."""

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(like)
        return builder.load(_at(builder, args[0]), align=1, typ=kind)

    return like(types.int64, like), codegen


@intrinsic
def store_element(typingctx, at, value):
    """Write an element to address `at`."""

    def codegen(context, builder, signature, args):
        builder.store(args[1], _at(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic
def swap_bytes(typingctx, bits):
    """An int64 with its bytes in the other order."""

    def codegen(context, builder, signature, args):
        return builder.bswap(args[0])

    return types.int64(types.int64), codegen


@intrinsic
def to_float(typingctx, bits):
    """The float32 whose bits are the low half of an int64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.trunc(args[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.int64), codegen


@intrinsic
def to_bits(typingctx, value):
    """The bits of a float32, as int64."""

    def codegen(context, builder, signature, args):
        return builder.zext(builder.bitcast(args[0], ir.IntType(32)), I64)

    return types.int64(types.float32), codegen


@intrinsic
def add_elements(typingctx, to, at, lanes, like):
    """Add `lanes` (a literal) elements at `at` to those at `to`; `like` gives their dtype."""
    if not isinstance(lanes, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        kind = ir.VectorType(context.get_value_type(signature.args[3]), lanes.literal_value)
        old, new = (builder.load(_at(builder, a), align=1, typ=kind) for a in args[:2])
        builder.store(builder.fadd(old, new), _at(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, lanes, like), codegen


@intrinsic
def copy_bytes(typingctx, to, at, n):
    """Copy `n` bytes between places that do not overlap."""

    def codegen(context, builder, signature, args):
        byte = cgutils.voidptr_t
        to, at = (builder.inttoptr(address, byte) for address in args[:2])
        cgutils.raw_memcpy(builder, to, at, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def zero_bytes(typingctx, to, n):
    """Write `n` zero bytes."""

    def codegen(context, builder, signature, args):
        to = builder.inttoptr(args[0], cgutils.voidptr_t)
        cgutils.memset(builder, to, args[1], 0)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def move_16_bytes(typingctx, to, at):
    """Copy 16 bytes: the vector that every host has."""

    def codegen(context, builder, signature, args):
        kind = ir.VectorType(I64, 2)
        value = builder.load(_at(builder, args[1]), align=1, typ=kind)
        builder.store(value, _at(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


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
        shape = TileShape(len(rows), len(tile[2]), len(tile[3]), element, len(tile[4]))
        left, right, result, ending = (
            cgutils.unpack_tuple(builder, group, len(kind))
            for group, kind in zip(args[3:], groups, strict=True)
        )
        emit_product(builder, shape, Operands(args[2], *left, *right, *result, *ending))
        return context.get_dummy_value()

    return types.void(tile, half, types.int64, *groups), codegen


def _pool_tile(context: Any, tile: Any, lanes: int) -> PoolTile:
    return PoolTile(lanes, context.get_value_type(tile[2]), len(tile[1]))


@intrinsic
def pool_reduce(typingctx, tile, window, x, y, argmax, cell, size):
    """One tile of a pooling by `emit.pool.emit_reduce`; not 0 if a NaN was met.

    Parameters
    ----------
    tile : tuple
        VL zeros, as many zeros as the kind's number, and minus infinity in the dtype.
    window, x, y, argmax, cell : tuple of int
        ``(offsets, cells, count)``, ``(x, x_step, left)``, ``(y, y_step)``,
        ``(argmax, argmax_step)`` and ``(cell, cell_step)``.
    size : int
        Divisor of means.
    """
    groups = [types.UniTuple(types.int64, n) for n in (3, 3, 2, 2, 2)]

    def codegen(context, builder, signature, args):
        shape = _pool_tile(context, tile, len(tile[0]))
        (offsets, cells, count), (at, at_step, left), *others = (
            cgutils.unpack_tuple(builder, group, len(kind))
            for group, kind in zip(args[1:6], groups, strict=True)
        )
        size = builder.sitofp(args[6], shape.element)
        (y, y_step), (winner, winner_step), (first, step) = others
        return emit_reduce(builder, shape, PoolOperands(
            count, offsets, cells, at, at_step, left, y, y_step, winner, winner_step, first, step,
            size,
        ))  # fmt: skip

    return types.int64(tile, *groups, types.int64), codegen


@intrinsic
def pool_errors(typingctx, tile, shift, window, dy, dx, argmax, cell, size):
    """One vector of a pixel's errors by `emit.pool.emit_errors`, of max(1, VL >> shift) channels.

    `shift` is a literal, `window` is ``(offsets, cells, count)``.
    """
    if not isinstance(shift, types.IntegerLiteral):
        return None
    triple = types.UniTuple(types.int64, 3)

    def codegen(context, builder, signature, args):
        shape = _pool_tile(context, tile, max(1, len(tile[0]) >> shift.literal_value))
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
def column_sums(typingctx, at, step, count, to, lanes, like):
    """Sums of `lanes` (a literal) channels over pixels by `emit.sums.emit_sums`."""
    if not isinstance(lanes, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        element = context.get_value_type(signature.args[5])
        emit_sums(builder, element, lanes.literal_value, *args[:4])
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4, lanes, like), codegen
