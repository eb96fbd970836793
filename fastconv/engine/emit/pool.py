"""LLVM IR of the pooling kernels: windows of a few pixels, a vector of channels of each.

Contract
--------
``emit_reduce`` computes, for pixels j < ROWS and VL channels, over the window's cells t < count::

    MAX      y[j] = the largest of  x[j, t]
    ARGMAX   the same, and  argmax[j] = cell + j*cell_step + cells[t]  of the first that is largest
    MEAN     y[j] = (0 + x[j, 0] + x[j, 1] + ...) / size

    x[j, t]    VL elements at  x + j*x_step + offsets[t]
    y[j]       VL elements at  y + j*y_step
    argmax[j]  VL 64-bit integers at  argmax + j*argmax_step

The lanes of images of one channel are windows that lie side by side, and j counts rows of windows::

    x[j, t]    VL elements, `spacing` apart, from  x + j*x_step + offsets[t]  on
    argmax[j]  cell + j*cell_step + cells[t] + i*spacing  in lane i

``emit_errors`` computes, for VL channels of one pixel, over the window's cells::

    SPREAD   dx[t] = dx[t] + dy / size
    FILL     dx[t] = dy / size
    PLACE    dx[t] = dy  if argmax = cell + cells[t], else 0

    dx[t]   VL elements at  dx + offsets[t]

or, for windows of two cells a row that lie side by side (`spacing` is 2, FILL and PLACE only), with
``cells[t] + 2*i`` in lane i::

    dx[t], dx[t + 1]   2*VL elements in turn at  dx + offsets[t],  for even t

PLACE tells of a winner that is neither negative nor in the window: the result is then not 0.

- Of pixels j >= left the last one that is left is computed again: there is no test for rows here.
- Addresses, steps and offsets are in bytes; `offsets` and `cells` are addresses of 64-bit integers.
  MAX and ARGMAX need a cell at least, ARGMAX and PLACE an image of less than 2**31 cells.
- MAX and ARGMAX ignore NaN but tell of it: the result is 0 only if no operand was one.
- Every access carries the alignment of one byte, and nothing is checked.
- Elements of 16 bits in memory (`half`) are of 32 bits in registers: each is converted exactly
  where it is loaded, and rounded to nearest where it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from fastconv.engine.emit.values import (
    I8,
    I32,
    I64,
    PTR,
    not_unrolled,
    shuffle,
    splat,
    word,
)

__all__ = ["ARGMAX", "FILL", "MAX", "MEAN", "PLACE", "ROWS", "SPREAD", "ErrorOperands",
           "PoolOperands", "PoolTile", "emit_errors", "emit_reduce", "emit_scatter"]  # fmt: skip

MAX, ARGMAX, MEAN, SPREAD, FILL, PLACE = range(6)
# Pixels of a tile: their chains of maxima and sums hide each other's latency.
ROWS = 4


@dataclass(frozen=True)
class PoolTile:
    """Lanes and LLVM element type of a vector, and what is computed.

    `spacing` is 0 where the lanes are channels; else elements from one window to the next, 1 or 2.
    With `half`, elements are of 16 bits in memory.
    """

    lanes: int
    element: Any
    kind: int
    spacing: int = 0
    half: bool = False

    @property
    def vector(self) -> Any:
        """LLVM type of a vector of channels."""
        return ir.VectorType(self.element, self.lanes)

    @property
    def nbytes(self) -> int:
        """Bytes of a vector in memory."""
        if self.half:
            return self.lanes * 2
        return self.lanes * (8 if isinstance(self.element, ir.DoubleType) else 4)

    @property
    def stored(self) -> Any:
        """LLVM type of a vector in memory."""
        return ir.VectorType(ir.HalfType(), self.lanes) if self.half else self.vector

    @property
    def integers(self) -> Any:
        """LLVM type of as many integers of the same width."""
        width = 64 if isinstance(self.element, ir.DoubleType) else 32
        return ir.VectorType(ir.IntType(width), self.lanes)


@dataclass(frozen=True)
class PoolOperands:
    """The operands of `emit_reduce` as LLVM values: 64-bit integers, and `size` an element."""

    count: Any
    offsets: Any
    cells: Any
    x: Any
    x_step: Any
    left: Any
    y: Any
    y_step: Any
    argmax: Any
    argmax_step: Any
    cell: Any
    cell_step: Any
    size: Any


@dataclass(frozen=True)
class ErrorOperands:
    """The operands of `emit_errors` as LLVM values: 64-bit integers, and `size` an element."""

    count: Any
    offsets: Any
    cells: Any
    dy: Any
    dx: Any
    argmax: Any
    cell: Any
    size: Any


def emit_reduce(builder: Any, tile: PoolTile, ops: PoolOperands) -> Any:
    """Emit a tile at the builder's position; returns whether a NaN was met, a 64-bit integer."""
    last = builder.sub(ops.left, I64(1))
    rows = [I64(0)]
    for j in range(1, ROWS):
        rows.append(builder.select(builder.icmp_signed("<", I64(j), last), I64(j), last))
    at = [builder.add(ops.x, builder.mul(row, ops.x_step)) for row in rows]
    if tile.kind == MEAN:
        nothing = [ir.Constant(tile.vector, None)] * ROWS
        sums, _, _ = _loop(builder, tile, ops, at, 0, (nothing, [], []))
        size = splat(builder, tile.vector, ops.size)
        results, wheres, met = [builder.fdiv(total, size) for total in sums], [], I64(0)
    else:
        first = [_spaced(builder, tile, a, word(builder, ops.offsets, I64(0))) for a in at]
        where = splat(builder, tile.integers, _cell(builder, tile, ops.cells, I64(0)))
        found = [where] * ROWS if tile.kind == ARGMAX else []
        start = (first, found, _unordered(builder, tile, first))
        results, wheres, flags = _loop(builder, tile, ops, at, 1, start)
        met = _any(builder, tile, flags)
    for row, result in zip(rows, results, strict=True):
        _store(builder, tile, result, builder.add(ops.y, builder.mul(row, ops.y_step)))
    wide = ir.VectorType(I64, tile.lanes)
    for row, where in zip(rows, wheres, strict=False):
        cell = builder.add(ops.cell, builder.mul(row, ops.cell_step))
        index = where if where.type == wide else builder.sext(where, wide)
        index = builder.add(index, splat(builder, wide, cell))
        index = builder.add(index, _numbers(wide, tile.spacing))
        at_row = builder.add(ops.argmax, builder.mul(row, ops.argmax_step))
        builder.store(index, builder.inttoptr(at_row, PTR), align=1)
    return met


def _loop(builder: Any, tile: PoolTile, ops: PoolOperands, at: Any, first: int, start: Any) -> Any:
    """The loop over the cells from `first` on; `start` and the result are lists of vectors."""
    before = builder.block
    loop = builder.append_basic_block("cells")
    done = builder.append_basic_block("reduced")
    builder.cbranch(builder.icmp_signed(">", ops.count, I64(first)), loop, done)

    builder.position_at_end(loop)
    t = builder.phi(I64)
    phis = tuple([builder.phi(value.type) for value in group] for group in start)
    offset = word(builder, ops.offsets, t)
    new = [_spaced(builder, tile, a, offset) for a in at]
    after = _step(builder, tile, ops, t, new, phis)
    t_next = builder.add(t, I64(1))
    turn = builder.cbranch(builder.icmp_signed("<", t_next, ops.count), loop, done)
    turn.set_metadata("llvm.loop", not_unrolled(builder.module))
    t.add_incoming(I64(first), before)
    t.add_incoming(t_next, loop)

    builder.position_at_end(done)
    results = tuple([builder.phi(value.type) for value in group] for group in start)
    for group, later, starts, ends in zip(phis, after, start, results, strict=True):
        for phi, value, first_value, end in zip(group, later, starts, ends, strict=True):
            for node in (phi, end):
                node.add_incoming(first_value, before)
                node.add_incoming(value, loop)
    return results


def _step(builder: Any, tile: PoolTile, ops: PoolOperands, t: Any, new: Any, phis: Any) -> Any:
    """Sums, or maxima, winners and the mask of NaN, after one more cell."""
    best, where, flags = phis
    if tile.kind == MEAN:
        return [builder.fadd(b, v) for b, v in zip(best, new, strict=True)], [], []
    larger = [builder.fcmp_ordered(">", v, b) for v, b in zip(new, best, strict=True)]
    picked = [builder.select(*three) for three in zip(larger, new, best, strict=True)]
    found = []
    if tile.kind == ARGMAX:
        cell = splat(builder, tile.integers, _cell(builder, tile, ops.cells, t))
        found = [builder.select(m, cell, w) for m, w in zip(larger, where, strict=True)]
    met = _unordered(builder, tile, new)
    return picked, found, [builder.or_(f, m) for f, m in zip(flags, met, strict=True)]


def _unordered(builder: Any, tile: PoolTile, values: Any) -> Any:
    """Masks of NaN: one comparison tells of two operands."""
    masks = [builder.fcmp_unordered("uno", *pair) for pair in zip(values[::2], values[1::2],
                                                                  strict=True)]  # fmt: skip
    return [builder.sext(mask, tile.integers) for mask in masks]


def _any(builder: Any, tile: PoolTile, flags: Any) -> Any:
    """Not 0 if a lane of a mask is set."""
    total = flags[0]
    for flag in flags[1:]:
        total = builder.or_(total, flag)
    clear = builder.icmp_signed("==", total, ir.Constant(tile.integers, None))
    bits = ir.IntType(tile.lanes)
    return builder.zext(
        builder.icmp_signed("!=", builder.bitcast(clear, bits), ir.Constant(bits, -1)), I64
    )


def emit_errors(builder: Any, tile: PoolTile, ops: ErrorOperands) -> Any:
    """Emit the errors of a window; returns whether a winner was not in it, a 64-bit integer."""
    error = _load(builder, tile, ops.dy, I64(0))
    winner = None
    found: list[Any] = []
    if tile.kind == PLACE:
        wide = ir.VectorType(I64, tile.lanes)
        at = builder.inttoptr(ops.argmax, PTR)
        argmax = builder.load(at, align=1, typ=wide)
        winner = builder.sub(argmax, splat(builder, wide, ops.cell))
        winner = builder.sub(winner, _numbers(wide, tile.spacing))
        winner = winner if wide == tile.integers else builder.trunc(winner, tile.integers)
        none = builder.icmp_signed("<", argmax, ir.Constant(wide, None))
        found = [builder.sext(none, tile.integers)]
    else:
        error = builder.fdiv(error, splat(builder, tile.vector, ops.size))
    if tile.kind != SPREAD:  # as if added to zero: no -0.0
        error = builder.fadd(error, ir.Constant(tile.vector, None))
    at_once = tile.spacing or 1
    before = builder.block
    loop = builder.append_basic_block("cells")
    done = builder.append_basic_block("errors")
    builder.cbranch(builder.icmp_signed(">", ops.count, I64(0)), loop, done)
    builder.position_at_end(loop)
    t = builder.phi(I64)
    phis = [builder.phi(tile.integers) for _ in found]
    at = builder.add(ops.dx, word(builder, ops.offsets, t))
    new, after = [error] * at_once, phis
    if tile.kind == SPREAD:
        new = [builder.fadd(_load(builder, tile, at, I64(0)), error)]
    elif tile.kind == PLACE:
        for u in range(at_once):
            cell = _cell(builder, tile, ops.cells, builder.add(t, I64(u)))
            here = builder.icmp_signed("==", winner, splat(builder, tile.integers, cell))
            new[u] = builder.select(here, error, ir.Constant(tile.vector, None))
            after = [builder.or_(after[0], builder.sext(here, tile.integers))]
    for vector in _in_turn(builder, new):
        _store(builder, tile, vector, at)
        at = builder.add(at, I64(tile.nbytes))
    t_next = builder.add(t, I64(at_once))
    turn = builder.cbranch(builder.icmp_signed("<", t_next, ops.count), loop, done)
    turn.set_metadata("llvm.loop", not_unrolled(builder.module))
    t.add_incoming(I64(0), before)
    t.add_incoming(t_next, loop)
    builder.position_at_end(done)
    ends = [builder.phi(tile.integers) for _ in found]
    for phi, end, first, later in zip(phis, ends, found, after, strict=True):
        for node in (phi, end):
            node.add_incoming(first, before)
            node.add_incoming(later, loop)
    if not ends:
        return I64(0)
    return _any(builder, tile, [builder.not_(end) for end in ends])


def emit_scatter(builder: Any, element: Any, dy: Any, argmax: Any, C: Any, dx: Any,
                 pixel: Any) -> None:  # fmt: skip
    """Emit ``dx[argmax[c], c] += dy[c]`` for C channels (at least one); not for a negative argmax.

    Not unrolled: few channels would be left to a second loop (6 channels: 1.3 times the time).
    """
    start = builder.block
    loop, add, after, done = (
        builder.append_basic_block(n) for n in ("channels", "add", "after", "scattered")
    )
    builder.branch(loop)
    builder.position_at_end(loop)
    c = builder.phi(I64)
    cell = word(builder, argmax, c)
    builder.cbranch(builder.icmp_signed(">=", cell, I64(0)), add, after)
    builder.position_at_end(add)
    line = builder.inttoptr(builder.add(dx, builder.mul(cell, pixel)), PTR)
    at = builder.gep(line, [c], source_etype=element)
    error = builder.gep(builder.inttoptr(dy, PTR), [c], source_etype=element)
    total = builder.fadd(*(builder.load(a, align=1, typ=element) for a in (at, error)))
    builder.store(total, at, align=1)
    builder.branch(after)
    builder.position_at_end(after)
    c_next = builder.add(c, I64(1))
    turn = builder.cbranch(builder.icmp_signed("<", c_next, C), loop, done)
    turn.set_metadata("llvm.loop", not_unrolled(builder.module))
    c.add_incoming(I64(0), start)
    c.add_incoming(c_next, after)
    builder.position_at_end(done)


def _cell(builder: Any, tile: PoolTile, cells: Any, t: Any) -> Any:
    """The t-th of `cells`, as wide as an element."""
    cell = word(builder, cells, t)
    return cell if tile.integers.element == I64 else builder.trunc(cell, I32)


def _numbers(wide: Any, spacing: int) -> Any:
    """`spacing` times the number of the lane."""
    return ir.Constant(wide, [I64(spacing * lane) for lane in range(wide.count)])


def _in_turn(builder: Any, vectors: list[Any]) -> list[Any]:
    """Two vectors whose lanes are those of two given ones in turn; one vector as it is."""
    if len(vectors) == 1:
        return vectors
    first, second = vectors
    lanes = first.type.count
    order = [lane + lanes * other for lane in range(lanes) for other in (0, 1)]
    return [shuffle(builder, first, second, order[half:][:lanes]) for half in (0, lanes)]


def _spaced(builder: Any, tile: PoolTile, at: Any, offset: Any) -> Any:
    """VL elements, `spacing` apart: nothing behind the last of them is read."""
    if tile.spacing <= 1 or tile.lanes == 1:
        return _load(builder, tile, at, offset)
    behind = builder.add(offset, I64((tile.lanes - 1) * tile.nbytes // tile.lanes))
    low, high = _load(builder, tile, at, offset), _load(builder, tile, at, behind)
    order = [2 * i + (2 * i >= tile.lanes) for i in range(tile.lanes)]
    return shuffle(builder, low, high, order)


def _load(builder: Any, tile: PoolTile, at: Any, offset: Any) -> Any:
    at = builder.gep(builder.inttoptr(at, PTR), [offset], source_etype=I8)
    value = builder.load(at, align=1, typ=tile.stored)
    return builder.fpext(value, tile.vector) if tile.half else value


def _store(builder: Any, tile: PoolTile, value: Any, at: Any) -> None:
    value = builder.fptrunc(value, tile.stored) if tile.half else value
    builder.store(value, builder.inttoptr(at, PTR), align=1)
