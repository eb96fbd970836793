"""The kinds of tiles of the micro-kernel: how each reads its operands and stores its sums.

A kind is asked by name (``tile.kind is DOT``). To the compiled loops it is a number, the length of
a tuple in the type of the tile.

The verbs, in the order in which `product` uses them for every row:

    load_right   the vectors of B in one step of the reduction
    load_left    what they are multiplied by: as many vectors
    multiply     one fused multiply-add for each accumulator
    unfold       the sums of a row, or of two, from its accumulators
    store        prior, ReLU, and the columns that are wanted
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir

from fastconv.engine.emit.values import (
    I32,
    I64,
    at_offset,
    intrinsic,
    lanes_of,
    pointer,
    shuffle,
    splat,
    word,
)

__all__ = ["DOT", "ELEMENTWISE", "KINDS", "OUTER", "PAIR", "TWIN", "Kind", "Operands", "TileShape"]


@dataclass(frozen=True)
class TileShape:
    """Rows, vectors, lanes and LLVM element type of a tile."""

    rows: int
    vectors: int
    lanes: int
    element: Any
    kind: Kind

    @property
    def vector(self) -> Any:
        """LLVM type of one vector."""
        return ir.VectorType(self.element, self.lanes)

    @property
    def nbytes(self) -> int:
        """Bytes of one vector."""
        return self.lanes * (8 if isinstance(self.element, ir.DoubleType) else 4)

    @property
    def suffix(self) -> str:
        """The vector type in the name of an LLVM intrinsic."""
        return f"v{self.lanes}f{64 if isinstance(self.element, ir.DoubleType) else 32}"


@dataclass(frozen=True)
class Operands:
    """The operands of `product`'s contract as LLVM values, all of them 64-bit integers."""

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


class Kind:
    """OUTER: a broadcast of one element of A meets NV vectors of B.

    What other kinds have in common with it, they inherit.
    """

    number = 0
    name = "outer"
    at_once = 1  # rows that are loaded together

    def columns(self, vectors: int, lanes: int) -> int:
        """NR: columns of a tile of NV vectors of VL lanes."""
        return vectors * lanes

    def every(self, lanes: int) -> int:
        """Elements of A in one step of the reduction."""
        return 1

    def sums(self, tile: TileShape) -> tuple[int, int]:
        """Accumulators: how many rows of how many vectors."""
        return tile.rows, tile.vectors

    def load_right(self, builder: Any, tile: TileShape, b: Any) -> list[Any]:
        """The vectors at `b`."""
        return vectors_at(builder, tile, b)

    def load_left(self, builder: Any, tile: TileShape, at: Any) -> list[Any]:
        """The element at `at` in every lane."""
        element = builder.load(at, align=1, typ=tile.element)
        return [splat(builder, tile.vector, element)] * tile.vectors

    def multiply(
        self, builder: Any, tile: TileShape, left: list[Any], right: list[Any], sums: list[Any]
    ) -> list[Any]:
        """A row's accumulators, and a product added to each."""
        name = f"llvm.fmuladd.{tile.suffix}"
        fma = intrinsic(builder, name, tile.vector, [tile.vector] * 3)
        after = [builder.call(fma, [x, y, z]) for x, y, z in zip(left, right, sums, strict=True)]
        if len(after) == 1:
            _barrier(builder, after[-1])
        return after

    def unfold(self, builder: Any, tile: TileShape, sums: list[Any]) -> list[list[Any]]:
        """The rows of C, as vectors, that a row of accumulators is."""
        return [sums]

    def store(self, builder: Any, tile: TileShape, ops: Operands, rows: list[list[Any]]) -> None:
        """Add prior, apply ReLU, and store `cols` columns of every row."""
        whole = builder.icmp_signed("==", ops.cols, I64(tile.lanes * tile.vectors))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                _store_rows(builder, tile, ops, rows, rests=None)
            with otherwise:
                _store_rows(builder, tile, ops, rows, _rests(builder, tile, ops.cols))


class Elementwise(Kind):
    """Depthwise products: A has an element for each column."""

    number = 1
    name = "elementwise"

    def load_left(self, builder: Any, tile: TileShape, at: Any) -> list[Any]:
        """NV vectors of A."""
        return vectors_at(builder, tile, at)


class Dot(Kind):
    """Few columns: the lanes run along the reduction, and are added in the end as a tree."""

    number = 2
    name = "dot"

    def columns(self, vectors: int, lanes: int) -> int:
        """A column for each vector."""
        return vectors

    def every(self, lanes: int) -> int:
        """A vector."""
        return lanes

    def load_left(self, builder: Any, tile: TileShape, at: Any) -> list[Any]:
        """One vector of A, for all columns."""
        return [builder.load(at, align=1, typ=tile.vector)] * tile.vectors

    def store(self, builder: Any, tile: TileShape, ops: Operands, rows: list[list[Any]]) -> None:
        """Single elements; `cols` is NV."""
        flag = builder.icmp_signed("!=", ops.accumulate, I64(0))
        low = _low(builder, tile, ops)
        results = []
        for i, row in enumerate(rows):
            c_row = builder.add(ops.c, word(builder, ops.c_row, i))
            prior = pointer(builder, builder.select(flag, c_row, ops.bias))
            for v, total in enumerate(row):
                index = [I64(v)]
                old = builder.gep(prior, index, source_etype=tile.element)
                old = builder.load(old, align=1, typ=tile.element)
                z = builder.fadd(_add_lanes(builder, tile, total), old)
                z = builder.select(builder.fcmp_ordered("<", z, low), low, z)
                at = builder.gep(pointer(builder, c_row), index, source_etype=tile.element)
                results.append((z, at))
        for z, at in results:
            builder.store(z, at, align=1)


class _Two(Kind):
    """Columns of one vector: one broadcast of two elements of A serves two vectors."""

    def columns(self, vectors: int, lanes: int) -> int:
        """One vector's."""
        return lanes

    def load_left(self, builder: Any, tile: TileShape, at: Any) -> list[Any]:
        """Two elements, in turn in every lane."""
        two = builder.load(at, align=1, typ=ir.VectorType(tile.element, 2))
        return [shuffle(builder, two, two, [0, 1] * (tile.lanes // 2))] * 2

    def store(self, builder: Any, tile: TileShape, ops: Operands, rows: list[list[Any]]) -> None:
        """As OUTER, of one vector."""
        super().store(builder, replace(tile, vectors=1), ops, rows)


class Pair(_Two):
    """The two elements are steps of the reduction, even and odd sums are added in the end."""

    number = 3
    name = "pair"

    def every(self, lanes: int) -> int:
        """A pair."""
        return 2

    def unfold(self, builder: Any, tile: TileShape, sums: list[Any]) -> list[list[Any]]:
        """The sums of the even steps plus those of the odd ones."""
        low, high = sums
        even = range(0, 2 * tile.lanes, 2)
        first, second = (shuffle(builder, low, high, [j + i for j in even]) for i in (0, 1))
        return [[builder.fadd(first, second)]]


class Twin(_Two):
    """The two elements are of rows that lie side by side; each lane of B is there twice."""

    number = 4
    name = "twin"
    at_once = 2

    def sums(self, tile: TileShape) -> tuple[int, int]:
        """Two vectors for two rows."""
        return tile.rows // 2, 2

    def load_right(self, builder: Any, tile: TileShape, b: Any) -> list[Any]:
        """The vector of B as twins: each lane twice, in two vectors."""
        (vector,) = vectors_at(builder, tile, b)
        return [shuffle(builder, vector, vector, half) for half in _twins(tile)]

    def unfold(self, builder: Any, tile: TileShape, sums: list[Any]) -> list[list[Any]]:
        """Two rows of sums from their twins: those of the even and of the odd lanes."""
        low, high = sums
        where = {j: 2 * i for i, j in enumerate(_twins(tile)[0][::2])}
        where |= {j: tile.lanes + 2 * i for i, j in enumerate(_twins(tile)[1][::2])}
        order = [where[j] for j in range(tile.lanes)]
        return [[shuffle(builder, low, high, [j + odd for j in order])] for odd in (0, 1)]


OUTER, ELEMENTWISE, DOT, PAIR, TWIN = KINDS = (Kind(), Elementwise(), Dot(), Pair(), Twin())


def vectors_at(builder: Any, tile: TileShape, base: Any, masks: Any = None) -> list[Any]:
    """NV vectors that lie one behind the other; of each, the lanes of its mask if there are any."""
    found = []
    for v in range(tile.vectors):
        at = at_offset(builder, base, v * tile.nbytes)
        if masks is None:
            found.append(builder.load(at, align=1, typ=tile.vector))
            continue
        types = [at.type, I32, masks[v].type, tile.vector]
        load = intrinsic(builder, f"llvm.masked.load.{tile.suffix}.p0", tile.vector, types)
        nothing = ir.Constant(tile.vector, None)
        found.append(builder.call(load, [at, I32(1), masks[v], nothing]))
    return found


def _twins(tile: TileShape) -> tuple[list[int], list[int]]:
    """The lanes of a vector, each twice, in two vectors: within 128 bits, where that is cheap."""
    block = 16 * tile.lanes // tile.nbytes
    order = range(tile.lanes)
    low, high = ([j for j in order if j % block * 2 // block == half] for half in (0, 1))
    return [j for j in low for _ in range(2)], [j for j in high for _ in range(2)]


def _barrier(builder: Any, value: Any) -> None:
    """No instruction, but `value` is computed before any later load.

    With one column vector, LLVM's scheduler else loads the broadcasts of all rows first, and spills
    the accumulators that they displace: 10x1 then runs at 35 instead of 50 GFLOP/s (K = 512).
    """
    register = "w" if platform.machine().lower() in ("aarch64", "arm64") else "x"
    kind = ir.FunctionType(ir.VoidType(), [value.type])
    builder.asm(kind, "", f"{register},~{{memory}}", [value], side_effect=True)


def _add_lanes(builder: Any, tile: TileShape, vector: Any) -> Any:
    """The upper half is added to the lower until one lane is left."""
    width = tile.lanes
    while width > 1:
        width //= 2
        low, high = (lanes_of(builder, vector, first, width) for first in (0, width))
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, I32(0))


def _low(builder: Any, tile: TileShape, ops: Operands) -> Any:
    """What ReLU cuts off at: 0, or minus infinity."""
    relu = builder.icmp_signed("!=", ops.relu, I64(0))
    zero = ir.Constant(tile.element, 0.0)
    return builder.select(relu, zero, ir.Constant(tile.element, float("-inf")))


def _store_rows(
    builder: Any, tile: TileShape, ops: Operands, rows: list[list[Any]], rests: Any
) -> None:
    """Add prior, apply ReLU, store; `rests` are the columns wanted of each column vector."""
    flag = builder.icmp_signed("!=", ops.accumulate, I64(0))
    low = splat(builder, tile.vector, _low(builder, tile, ops))
    masks = rests and [_mask(builder, tile, rest) for rest in rests]
    results = []
    for i, row in enumerate(rows):
        c_row = builder.add(ops.c, word(builder, ops.c_row, i))
        prior = pointer(builder, builder.select(flag, c_row, ops.bias))
        for v, old in enumerate(vectors_at(builder, tile, prior, masks)):
            z = builder.fadd(row[v], old)
            z = builder.select(builder.fcmp_ordered("<", z, low), low, z)
            results.append((z, at_offset(builder, pointer(builder, c_row), v * tile.nbytes), v))
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
                    builder.store(lanes_of(builder, z, 0, width), at, align=1)
                if width > 1:
                    z = builder.select(wanted, lanes_of(builder, z, width, width),
                                       lanes_of(builder, z, 0, width))  # fmt: skip
                    after = at_offset(builder, at, width * tile.nbytes // tile.lanes)
                    at = builder.select(wanted, after, at)
                width //= 2


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
    numbers = ir.Constant(lanes, list(range(tile.lanes)))
    return builder.icmp_signed("<", numbers, splat(builder, lanes, rest))
