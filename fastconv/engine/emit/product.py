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
  last. A host without such an instruction multiplies, then adds.
- Nothing is checked: the caller guarantees that every address is readable, and C writeable.

Registers: MR*NV accumulators live in phi nodes across the loop over q, which is not unrolled: with
six loads and twelve multiply-adds a turn its overhead hides behind the multiply-adds.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir

from fastconv.engine.tables.tiles import DOT, ELEMENTWISE, OUTER, PAIR, TWIN

__all__ = ["Operands", "TileShape", "emit_product"]

I64 = ir.IntType(64)
I32 = ir.IntType(32)
I8 = ir.IntType(8)
PTR = ir.PointerType()


@dataclass(frozen=True)
class TileShape:
    """Rows, vectors, lanes and LLVM element type of a tile."""

    rows: int
    vectors: int
    lanes: int
    element: Any
    kind: int

    @property
    def vector(self) -> Any:
        """LLVM type of one vector."""
        return ir.VectorType(self.element, self.lanes)

    @property
    def nbytes(self) -> int:
        """Bytes of one vector."""
        return self.lanes * (8 if isinstance(self.element, ir.DoubleType) else 4)

    @property
    def sums(self) -> tuple[int, int]:
        """Accumulators: how many rows of how many vectors."""
        return (self.rows // 2, 2) if self.kind == TWIN else (self.rows, self.vectors)

    @property
    def suffix(self) -> str:
        """The vector type in the name of an LLVM intrinsic."""
        return f"v{self.lanes}f{64 if isinstance(self.element, ir.DoubleType) else 32}"


@dataclass(frozen=True)
class Operands:
    """The operands of the contract as LLVM values, all of them 64-bit integers."""

    k: Any
    a: Any
    row: Any
    red: Any
    b: Any
    b_step: Any
    c: Any
    c_row: Any
    cols: Any
    bias: Any
    accumulate: Any
    relu: Any


def emit_product(builder: Any, tile: TileShape, ops: Operands) -> None:
    """Emit the product at the builder's position; leaves it after the stores."""
    sums = _reduce(builder, tile, ops)
    if tile.kind == DOT:
        _dot_epilogue(builder, tile, ops, sums)
        return
    if tile.kind in (PAIR, TWIN):
        unfold = _add_pairs if tile.kind == PAIR else _part_twins
        sums = [[row] for pair in sums for row in unfold(builder, tile, *pair)]
        tile = replace(tile, vectors=1, kind=OUTER)
    whole = builder.icmp_signed("==", ops.cols, I64(tile.lanes * tile.vectors))
    with builder.if_else(whole) as (then, otherwise):
        with then:
            _epilogue(builder, tile, ops, sums, rests=None)
        with otherwise:
            _epilogue(builder, tile, ops, sums, _rests(builder, tile, ops.cols))


def _reduce(builder: Any, tile: TileShape, ops: Operands) -> list[list[Any]]:
    """The sums over q, one vector for each row and column vector."""
    zero = ir.Constant(tile.vector, None)
    fma = _intrinsic(builder, f"llvm.fmuladd.{tile.suffix}", tile.vector, [tile.vector] * 3)
    count, width = tile.sums
    rows = [_pointer(builder, builder.add(ops.a, _word(builder, ops.row, i)))
            for i in range(0, tile.rows, tile.rows // count)]  # fmt: skip
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
    right = _vectors(builder, tile, _pointer(builder, b))
    if tile.kind == TWIN:
        right = [_shuffle(builder, right[0], right[0], half) for half in _twins(tile)]
    after = []
    for base, row_sums in zip(rows, sums, strict=True):
        at = builder.gep(base, [offset], source_etype=I8)
        if tile.kind == ELEMENTWISE:
            left = _vectors(builder, tile, at)
        elif tile.kind == DOT:
            left = [builder.load(at, align=1, typ=tile.vector)] * tile.vectors
        elif tile.kind in (PAIR, TWIN):
            two = builder.load(at, align=1, typ=ir.VectorType(tile.element, 2))
            left = [_shuffle(builder, two, two, [0, 1] * (tile.lanes // 2))] * 2
        else:
            left = [_broadcast(builder, tile, at)] * tile.vectors
        after.append([builder.call(fma, [x, y, z])
                      for x, y, z in zip(left, right, row_sums, strict=True)])  # fmt: skip
        if width == 1:
            _barrier(builder, after[-1][-1])
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


def _twins(tile: TileShape) -> tuple[list[int], list[int]]:
    """The lanes of a vector, each twice, in two vectors: within 128 bits, where that is cheap."""
    block = 16 * tile.lanes // tile.nbytes
    order = range(tile.lanes)
    low, high = ([j for j in order if j % block * 2 // block == half] for half in (0, 1))
    return [j for j in low for _ in range(2)], [j for j in high for _ in range(2)]


def _part_twins(builder: Any, tile: TileShape, low: Any, high: Any) -> list[Any]:
    """Two rows of sums from their twins: those of the even and of the odd lanes."""
    where = {j: 2 * i for i, j in enumerate(_twins(tile)[0][::2])}
    where |= {j: tile.lanes + 2 * i for i, j in enumerate(_twins(tile)[1][::2])}
    order = [where[j] for j in range(tile.lanes)]
    return [_shuffle(builder, low, high, [j + odd for j in order]) for odd in (0, 1)]


def _add_pairs(builder: Any, tile: TileShape, low: Any, high: Any) -> list[Any]:
    """The sums of the even steps plus those of the odd ones."""
    even = range(0, 2 * tile.lanes, 2)
    even, odd = (_shuffle(builder, low, high, [j + i for j in even]) for i in (0, 1))
    return [builder.fadd(even, odd)]


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    """Lanes of two vectors, counted through, in this order."""
    lanes = ir.Constant(ir.VectorType(I32, len(order)), [I32(j) for j in order])
    return builder.shuffle_vector(a, b, lanes)


def _barrier(builder: Any, value: Any) -> None:
    """No instruction, but `value` is computed before any later load.

    With one column vector, LLVM's scheduler else loads the broadcasts of all rows first, and spills
    the accumulators that they displace: 10x1 then runs at 35 instead of 50 GFLOP/s (K = 512).
    """
    register = "w" if platform.machine().lower() in ("aarch64", "arm64") else "x"
    kind = ir.FunctionType(ir.VoidType(), [value.type])
    builder.asm(kind, "", f"{register},~{{memory}}", [value], side_effect=True)


def not_unrolled(module: Any) -> Any:
    """Metadata of a loop that LLVM shall not unroll: the second turn would spill accumulators."""
    loop = module.add_metadata([module.add_metadata(["llvm.loop.unroll.disable"])])
    if loop.operands[0] is not loop:
        loop.operands = (loop, *loop.operands)  # a loop's node begins with itself
    return loop


def _dot_epilogue(builder: Any, tile: TileShape, ops: Operands, sums: Any) -> None:
    """Add the lanes and prior, apply ReLU, store single elements."""
    flag = builder.icmp_signed("!=", ops.accumulate, I64(0))
    low = _low(builder, tile, ops)
    results = []
    for i, row_sums in enumerate(sums):
        c_row = builder.add(ops.c, _word(builder, ops.c_row, i))
        prior = _pointer(builder, builder.select(flag, c_row, ops.bias))
        for v, total in enumerate(row_sums):
            index = [I64(v)]
            old = builder.gep(prior, index, source_etype=tile.element)
            old = builder.load(old, align=1, typ=tile.element)
            z = builder.fadd(_add_lanes(builder, tile, total), old)
            z = builder.select(builder.fcmp_ordered("<", z, low), low, z)
            at = builder.gep(_pointer(builder, c_row), index, source_etype=tile.element)
            results.append((z, at))
    for z, at in results:
        builder.store(z, at, align=1)


def _add_lanes(builder: Any, tile: TileShape, vector: Any) -> Any:
    """The upper half is added to the lower until one lane is left."""
    width = tile.lanes
    while width > 1:
        width //= 2
        low, high = (_lanes(builder, vector, first, width) for first in (0, width))
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, I32(0))


def _low(builder: Any, tile: TileShape, ops: Operands) -> Any:
    relu = builder.icmp_signed("!=", ops.relu, I64(0))
    zero = ir.Constant(tile.element, 0.0)
    return builder.select(relu, zero, ir.Constant(tile.element, float("-inf")))


def _epilogue(builder: Any, tile: TileShape, ops: Operands, sums: Any, rests: Any) -> None:
    """Add prior, apply ReLU, store; `rests` are the columns wanted of each column vector."""
    flag = builder.icmp_signed("!=", ops.accumulate, I64(0))
    low = _splat(builder, tile, _low(builder, tile, ops))
    masks = rests and [_mask(builder, tile, rest) for rest in rests]
    results = []
    for i, row_sums in enumerate(sums):
        c_row = builder.add(ops.c, _word(builder, ops.c_row, i))
        prior = _pointer(builder, builder.select(flag, c_row, ops.bias))
        for v, old in enumerate(_vectors(builder, tile, prior, masks)):
            z = builder.fadd(row_sums[v], old)
            z = builder.select(builder.fcmp_ordered("<", z, low), low, z)
            at = builder.gep(_pointer(builder, c_row), [I64(v * tile.nbytes)], source_etype=I8)
            results.append((z, at, v))
    for z, at, v in results:  # after all loads: a repeated row must not add to itself
        if rests is None:
            builder.store(z, at, align=1)
        else:
            _store_rest(builder, tile, z, at, rests[v])


def _store_rest(builder: Any, tile: TileShape, z: Any, at: Any, rest: Any) -> None:
    """Store `rest` lanes: all, or a half, a quarter, ... as the bits of the number say.

    A masked store takes 23 cycles on Zen 4, and many instructions without AVX; this takes 5.
    """
    whole = builder.icmp_signed("==", rest, I64(tile.lanes))
    with builder.if_else(whole) as (then, otherwise):
        with then:
            builder.store(z, at, align=1)
        with otherwise:
            width = tile.lanes // 2
            while width:
                wanted = builder.icmp_signed("!=", builder.and_(rest, I64(width)), I64(0))
                with builder.if_then(wanted):
                    builder.store(_lanes(builder, z, 0, width), at, align=1)
                if width > 1:
                    z = builder.select(wanted, _lanes(builder, z, width, width),
                                       _lanes(builder, z, 0, width))  # fmt: skip
                    after = builder.gep(at, [I64(width * tile.nbytes // tile.lanes)],
                                        source_etype=I8)  # fmt: skip
                    at = builder.select(wanted, after, at)
                width //= 2


def _lanes(builder: Any, vector: Any, first: int, count: int) -> Any:
    """`count` lanes of a vector, as a vector."""
    return _shuffle(builder, vector, vector, range(first, first + count))


def _vectors(builder: Any, tile: TileShape, base: Any, masks: Any = None) -> list[Any]:
    """NV vectors that lie one behind the other."""
    found = []
    for v in range(tile.vectors):
        at = builder.gep(base, [I64(v * tile.nbytes)], source_etype=I8)
        if masks is None:
            found.append(builder.load(at, align=1, typ=tile.vector))
            continue
        types = [PTR, I32, masks[v].type, tile.vector]
        load = _intrinsic(builder, f"llvm.masked.load.{tile.suffix}.p0", tile.vector, types)
        nothing = ir.Constant(tile.vector, None)
        found.append(builder.call(load, [at, I32(1), masks[v], nothing]))
    return found


def _rests(builder: Any, tile: TileShape, cols: Any) -> list[Any]:
    """For each column vector, how many of its lanes are wanted."""
    rests = []
    for v in range(tile.vectors):
        rest = builder.sub(cols, I64(v * tile.lanes))
        rest = builder.select(builder.icmp_signed("<", rest, I64(0)), I64(0), rest)
        many = builder.icmp_signed(">", rest, I64(tile.lanes))
        rests.append(builder.select(many, I64(tile.lanes), rest))
    return rests


def _mask(builder: Any, tile: TileShape, rest: Any) -> Any:
    """The lanes whose number is below `rest`."""
    lanes = ir.VectorType(I64, tile.lanes)
    limit = builder.insert_element(ir.Constant(lanes, ir.Undefined), rest, I32(0))
    order = ir.Constant(ir.VectorType(I32, tile.lanes), [0] * tile.lanes)
    limit = builder.shuffle_vector(limit, ir.Constant(lanes, ir.Undefined), order)
    numbers = ir.Constant(lanes, list(range(tile.lanes)))
    return builder.icmp_signed("<", numbers, limit)


def _broadcast(builder: Any, tile: TileShape, at: Any) -> Any:
    return _splat(builder, tile, builder.load(at, align=1, typ=tile.element))


def _splat(builder: Any, tile: TileShape, value: Any) -> Any:
    nothing = ir.Constant(tile.vector, ir.Undefined)
    first = builder.insert_element(nothing, value, I32(0))
    order = ir.Constant(ir.VectorType(I32, tile.lanes), [0] * tile.lanes)
    return builder.shuffle_vector(first, nothing, order)


def _word(builder: Any, address: Any, i: int) -> Any:
    at = builder.gep(builder.inttoptr(address, PTR), [I64(i)], source_etype=I64)
    return builder.load(at, align=8, typ=I64)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, PTR)


def _intrinsic(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Declared by name: llvmlite cannot mangle vector types."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)
