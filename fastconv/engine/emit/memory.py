"""Memory by address, counters, and calls by address, as intrinsics of the loops.

An address is an int64. Nothing here checks bounds or alignment, and every access carries the
alignment of one byte, so that unaligned arrays need no path of their own.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.engine.emit.values import I64, PTR

__all__ = [
    "add_elements", "add_one", "call_entry", "call_function", "call_sweep", "copy_bytes",
    "load_bits", "load_element", "move_16_bytes", "ordered_word", "put_ordered_word", "store_bits",
    "store_element", "store_word", "store_words", "swap_bytes", "take_one", "to_bits", "to_float",
    "wait_for", "wait_until_left", "word", "words", "zero_bytes",
]  # fmt: skip


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
def take_one(typingctx, table, i):
    """Count the i-th int64 of `table` down; what this thread read before was read before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("sub", _at(builder, args[0], args[1], 8), I64(1), "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def ordered_word(typingctx, table, i):
    """`word`, which other threads may be writing: all agree on the order of such accesses."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_at(builder, args[0], args[1], 8), "seq_cst", 8, typ=I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def put_ordered_word(typingctx, table, i, value):
    """`store_word`, which other threads may be reading, in the order of `ordered_word`."""

    def codegen(context, builder, signature, args):
        builder.atomic_rmw("xchg", _at(builder, args[0], args[1], 8), args[2], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def wait_for(typingctx, table, i, value):
    """Wait until other threads have counted the i-th int64 of `table` up to `value`.

    What they wrote before is seen afterwards. They must be running: nothing here wakes one.
    """

    def codegen(context, builder, signature, args):
        at = _at(builder, args[0], args[1], 8)

        def reached():
            count = builder.load_atomic(at, "acquire", 8, typ=I64)
            return builder.icmp_signed(">=", count, args[2])

        _wait_until(builder, reached)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def wait_until_left(typingctx, table, entered, left):
    """Wait until the word `left` of `table` is what the word `entered` is.

    Threads count `entered` up before they take work, and `left` when they have found no more. As
    `left` is read first, who entered after that found no work. What they wrote is seen afterwards.
    """

    def codegen(context, builder, signature, args):
        entered_at, left_at = (_at(builder, args[0], i, 8) for i in args[1:])

        def all_left():
            gone = builder.load_atomic(left_at, "seq_cst", 8, typ=I64)
            come = builder.load_atomic(entered_at, "seq_cst", 8, typ=I64)
            return builder.icmp_signed("==", gone, come)

        _wait_until(builder, all_left)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 3), codegen


# How often a waiting thread looks before it lets others have its processor.
SPINS = 4000


def _wait_until(builder: Any, holds: Callable[[], Any]) -> None:
    """Emit a loop that waits until what `holds` emits is true."""
    before = builder.block
    look, rest, give, done = (
        builder.append_basic_block(name) for name in ("look", "rest", "give", "done")
    )
    builder.branch(look)
    builder.position_at_end(look)
    spins = builder.phi(I64)
    builder.cbranch(holds(), done, rest)
    builder.position_at_end(rest)
    _pause(builder)
    more = builder.add(spins, I64(1))
    builder.cbranch(builder.icmp_signed("<", more, I64(SPINS)), look, give)
    builder.position_at_end(give)
    _yield(builder)
    builder.branch(look)
    for value, block in ((I64(0), before), (more, rest), (I64(0), give)):
        spins.add_incoming(value, block)
    builder.position_at_end(done)


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
def call_function(typingctx, function, argument):
    """Call the C function ``int64 function(int64)`` at an address: pointers where they are wide."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(I64, [I64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])

    return types.int64(types.int64, types.int64), codegen


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
    """Copy 16 bytes: the vector that every processor has."""

    def codegen(context, builder, signature, args):
        kind = ir.VectorType(I64, 2)
        value = builder.load(_at(builder, args[1]), align=1, typ=kind)
        builder.store(value, _at(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
