"""LLVM IR of the micro-kernel, the only place where products are computed.

Contract
--------
``emit_product`` emits, for a tile of MR rows and NR = NV*VL columns::

    C[i, :cols] = max(prior[i, :cols] + sum over q < k of A[i, q] * B[q, :cols], low)

    A[i, q]   one element at  a + row[i] + red[q]      OUTER: broadcast over the columns
              NR elements there, one for each column   ELEMENTWISE: depthwise products
              VL elements there                        DOT: q counts vectors of the reduction
              two elements there                       PAIR: q counts pairs of the reduction
              i even: two elements, A[i] and A[i + 1]  TWIN: row[i + 1] is not read
    B[q, :]   NR elements at  b + q*b_step             DOT, PAIR: NR vectors, pairs of elements
    C[i, :]   cols elements at  c + c_row[i]
    prior     C itself where `accumulate` is set, else the NR elements at `bias`, for every row
    low       0 where `relu` is set, else minus infinity; a NaN stays a NaN

- Addresses and offsets are 64-bit integers in bytes; `row`, `red`, `c_row` are addresses of 64-bit
  integers: MR, k and MR of them. k may be 0.
- Rows may repeat: a rest of fewer than MR rows is padded with copies of its last row, which compute
  and store the same values again. So there is no test for rows in here.
- B and the bias are read NR wide, always: they are packed and padded. C is read and written
  `cols` wide (1 <= cols <= NR), and A as wide as said above.
- DOT has NV columns, not NV*VL, and needs cols = NV. Its lanes are added in the end as a tree.
- PAIR and TWIN are for NR = VL columns, where every multiply-add of OUTER would want a broadcast
  of its own: one broadcast of two elements serves two. PAIR (NV = 2) adds its even and its odd
  steps in the end; TWIN (NV = 1, MR even) repeats rows by twos.
- Every access carries the alignment of one byte: nothing is asked of the caller's arrays.
- Each sum is one chain of fused multiply-adds in the order of q that starts at 0; prior is added
  last. A processor without such an instruction multiplies, then adds.
- Nothing is checked: the caller guarantees that every address is readable, and C writeable.

Registers: MR*NV accumulators live in phi nodes across the loop over q, which is not unrolled: with
six loads and twelve multiply-adds a turn its overhead hides behind the multiply-adds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastconv.engine.emit.kinds import Operands, TileShape
from fastconv.engine.emit.values import I64, PTR, at_offset, not_unrolled, pointer, word

__all__ = ["Operands", "TileShape", "emit_product"]


def emit_product(builder: Any, tile: TileShape, ops: Operands) -> None:
    """Emit the product at the builder's position; leaves it after the stores."""
    sums = _reduce(builder, tile, ops)
    rows = [row for some in sums for row in tile.kind.unfold(builder, tile, some)]
    tile.kind.store(builder, tile, ops, rows)


def _reduce(builder: Any, tile: TileShape, ops: Operands) -> list[list[Any]]:
    """The sums over q, one vector for each row and column vector."""
    kind, zero = tile.kind, ir.Constant(tile.vector, None)
    count, width = kind.sums(tile)
    rows = [pointer(builder, builder.add(ops.a, word(builder, ops.row, i)))
            for i in range(0, tile.rows, kind.at_once)]  # fmt: skip
    red = builder.inttoptr(ops.red, PTR)
    start = builder.block
    loop = builder.append_basic_block("product")
    done = builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed(">", ops.k, I64(0)), loop, done)

    builder.position_at_end(loop)
    q = builder.phi(I64)
    b = builder.phi(I64)
    sums = [[builder.phi(tile.vector) for _ in range(width)] for _ in range(count)]
    offset = builder.load(builder.gep(red, [q], source_etype=I64), align=8, typ=I64)
    right = kind.load_right(builder, tile, pointer(builder, b))
    after = []
    for base, row_sums in zip(rows, sums, strict=True):
        left = kind.load_left(builder, tile, at_offset(builder, base, offset))
        after.append(kind.multiply(builder, tile, left, right, row_sums))
    q_next = builder.add(q, I64(1))
    b_next = builder.add(b, ops.b_step)
    turn = builder.cbranch(builder.icmp_signed("<", q_next, ops.k), loop, done)
    turn.set_metadata("llvm.loop", not_unrolled(builder.module))
    for phi, first, later in ((q, I64(0), q_next), (b, ops.b, b_next)):
        phi.add_incoming(first, start)
        phi.add_incoming(later, loop)

    builder.position_at_end(done)
    results: list[list[Any]] = []
    for row_sums, row_after in zip(sums, after, strict=True):
        results.append([])
        for phi, later in zip(row_sums, row_after, strict=True):
            phi.add_incoming(zero, start)
            phi.add_incoming(later, loop)
            result = builder.phi(tile.vector)
            result.add_incoming(zero, start)
            result.add_incoming(later, loop)
            results[-1].append(result)
    return results
