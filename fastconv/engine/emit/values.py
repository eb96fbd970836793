"""LLVM values that several kernels are made of: vectors, shuffles, words of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

__all__ = ["I8", "I32", "I64", "PTR", "at_offset", "intrinsic", "lanes_of", "not_unrolled",
           "pointer", "shuffle", "splat", "word"]  # fmt: skip

I64 = ir.IntType(64)
I32 = ir.IntType(32)
I8 = ir.IntType(8)
PTR = ir.PointerType()


def pointer(builder: Any, address: Any) -> Any:
    """An address, a 64-bit integer, as a pointer."""
    return builder.inttoptr(address, PTR)


def at_offset(builder: Any, base: Any, nbytes: Any) -> Any:
    """The pointer so many bytes behind `base`; they are a number, or an LLVM value."""
    offset = I64(nbytes) if isinstance(nbytes, int) else nbytes
    return builder.gep(base, [offset], source_etype=I8)


def word(builder: Any, table: Any, i: Any) -> Any:
    """The i-th int64 of the table at an address; i is a number, or an LLVM value."""
    index = I64(i) if isinstance(i, int) else i
    at = builder.gep(pointer(builder, table), [index], source_etype=I64)
    return builder.load(at, align=8, typ=I64)


def shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    """Lanes of two vectors, counted through, in this order."""
    lanes = ir.Constant(ir.VectorType(I32, len(order)), [I32(j) for j in order])
    return builder.shuffle_vector(a, b, lanes)


def lanes_of(builder: Any, vector: Any, first: int, count: int) -> Any:
    """`count` lanes of a vector, as a vector."""
    return shuffle(builder, vector, vector, range(first, first + count))


def splat(builder: Any, vector: Any, value: Any) -> Any:
    """A vector, of the type `vector`, whose lanes are all `value`."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, I32(0))
    order = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, nothing, order)


def intrinsic(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    """An intrinsic of LLVM, declared by name: llvmlite cannot mangle vector types."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def not_unrolled(module: Any) -> Any:
    """Metadata of a loop that LLVM shall not unroll: the second turn would spill accumulators."""
    loop = module.add_metadata([module.add_metadata(["llvm.loop.unroll.disable"])])
    if loop.operands[0] is not loop:
        loop.operands = (loop, *loop.operands)  # a loop's node begins with itself
    return loop
