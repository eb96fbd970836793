"""Vectors of elements as values of compiled code: loops that are all arithmetic read like it.

    v = load(at, lanes, like)
    store(to, choose(v > zero, v * scale + shift, zero))

Contract
--------
`lanes` is a tuple of VL zeros and `like` an element: their types are the vector's. ``+ - * /`` and
comparisons work element by element. No operation carries a fast-math flag, whatever the options of
the function around it: a product and a sum are two roundings, `fma` is one, whatever stands around
them, so that a kernel gives the same bits in every entry and in every lane. Addresses are int64,
nothing checks bounds, and every access has the alignment of one byte.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from fastconv.engine.emit.values import PTR

__all__ = [
    "call_overloaded",
    "choose",
    "fma",
    "largest",
    "load",
    "load_bytes",
    "load_first",
    "magnitude",
    "narrow",
    "number",
    "plain",
    "root",
    "spread",
    "step_of",
    "store",
    "store_bytes",
    "store_first",
    "store_first_bytes",
    "total",
    "widen",
]  # fmt: skip

ARITHMETIC = {
    operator.add: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}
# A NaN fulfils no comparison but "!=".
COMPARISONS = {
    operator.gt: ("ordered", ">"),
    operator.ge: ("ordered", ">="),
    operator.lt: ("ordered", "<"),
    operator.le: ("ordered", "<="),
    operator.eq: ("ordered", "=="),
    operator.ne: ("unordered", "!="),
}


class Vector(types.Type):
    """`lanes` elements of a Numba type; of booleans, what a comparison gives."""

    def __init__(self, lanes: int, element: Any) -> None:
        self.lanes, self.element = lanes, element
        super().__init__(name=f"Vector({lanes}, {element})")


@register_default(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        bits = kind.element == types.boolean
        element = ir.IntType(1) if bits else manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))


class _NoFlags(list[str]):
    """No fast-math flags, for good: Numba gives its own to all instructions that have none."""

    def __bool__(self) -> bool:
        return True


def plain(instruction: Any) -> Any:
    """The instruction, without fast-math flags."""
    instruction.flags = _NoFlags()
    return instruction


def _operation(function: Any, result: Any, lower: Any) -> None:
    """Give an operator of Python a meaning between two vectors of one kind."""

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            a, b = args
            return signature(result(a), a, b) if isinstance(a, Vector) and a == b else None

    @lower_builtin(function, Vector, Vector)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return lower(builder, *args)


for _function, _method in ARITHMETIC.items():
    _operation(
        _function,
        lambda kind: kind,
        lambda builder, a, b, method=_method: plain(getattr(builder, method)(a, b)),
    )
for _function, (_order, _sign) in COMPARISONS.items():
    _operation(
        _function,
        lambda kind: Vector(kind.lanes, types.boolean),
        lambda builder, a, b, order=_order, sign=_sign: plain(
            getattr(builder, f"fcmp_{order}")(sign, a, b)
        ),
    )


def call_overloaded(builder: Any, name: str, *args: Any) -> Any:
    """Call an LLVM intrinsic that is overloaded on the type of its first operand."""
    kind = args[0].type
    element = {ir.FloatType(): "f32", ir.DoubleType(): "f64"}[kind.element]
    function = builder.module.globals.get(f"llvm.{name}.v{kind.count}{element}")
    if function is None:
        of = ir.FunctionType(kind, [a.type for a in args])
        function = ir.Function(builder.module, of, f"llvm.{name}.v{kind.count}{element}")
    return builder.call(function, args)


@intrinsic
def load(typingctx, at, lanes, like):
    """The vector at address `at`."""
    kind = Vector(len(lanes), like)

    def codegen(context, builder, signature, args):
        where = builder.inttoptr(args[0], PTR)
        return builder.load(where, align=1, typ=context.get_value_type(kind))

    return kind(types.int64, lanes, like), codegen


@intrinsic
def store(typingctx, to, value):
    """Write a vector to address `to`."""

    def codegen(context, builder, signature, args):
        builder.store(args[1], builder.inttoptr(args[0], PTR), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


def _first(builder: Any, vector: Any, count: Any) -> Any:
    """The mask of the first `count` lanes."""
    kind = ir.VectorType(ir.IntType(64), vector.count)
    lanes = ir.Constant(kind, list(range(vector.count)))
    nothing, order = ir.Constant(kind, ir.Undefined), ir.VectorType(ir.IntType(32), vector.count)
    one = builder.insert_element(nothing, count, ir.IntType(32)(0))
    return builder.icmp_signed(
        "<", lanes, builder.shuffle_vector(one, nothing, ir.Constant(order, None))
    )


def _masked(builder: Any, name: str, vector: Any, result: Any, *args: Any) -> Any:
    """Call ``llvm.masked.load`` or ``llvm.masked.store``."""
    element = {ir.FloatType(): "f32", ir.DoubleType(): "f64"}[vector.element]
    full = f"llvm.masked.{name}.v{vector.count}{element}.p0"
    function = builder.module.globals.get(full)
    if function is None:
        kind = ir.FunctionType(result, [a.type for a in args])
        function = ir.Function(builder.module, kind, full)
    return builder.call(function, args)


ALIGNED_TO_A_BYTE = ir.IntType(32)(1)


@intrinsic
def load_first(typingctx, at, count, other):
    """A vector of the `count` elements at address `at`, and of those of `other` behind them.

    Nothing behind the elements is read; a count of all lanes, or more, reads all.
    """

    def codegen(context, builder, signature, args):
        at, count, other = args
        mask = _first(builder, other.type, count)
        where = builder.inttoptr(at, PTR)
        operands = where, ALIGNED_TO_A_BYTE, mask, other
        return _masked(builder, "load", other.type, other.type, *operands)

    return other(types.int64, types.int64, other), codegen


@intrinsic
def store_first(typingctx, to, count, value):
    """Write the first `count` elements of a vector to address `to`, and nothing behind them."""

    def codegen(context, builder, signature, args):
        to, count, value = args
        mask = _first(builder, value.type, count)
        where = builder.inttoptr(to, PTR)
        operands = value, where, ALIGNED_TO_A_BYTE, mask
        _masked(builder, "store", value.type, ir.VoidType(), *operands)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), codegen


@intrinsic
def spread(typingctx, value, lanes):
    """A vector of one value."""
    kind = Vector(len(lanes), value)

    def codegen(context, builder, signature, args):
        vector = context.get_value_type(kind)
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), args[0], ir.IntType(32)(0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), kind.lanes), None)
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)

    return kind(value, lanes), codegen


@intrinsic
def number(typingctx, like, above, below):
    """A vector like `like` of one number, the quotient of two integers (literals), rounded."""
    if not isinstance(above, types.IntegerLiteral) or not isinstance(below, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(signature.args[0])
        return ir.Constant(kind, [above.literal_value / below.literal_value] * kind.count)

    return like(like, above, below), codegen


@intrinsic
def step_of(typingctx, lanes, like):
    """Bytes of a vector."""
    nbytes = len(lanes) * like.bitwidth // 8

    def codegen(context, builder, signature, args):
        return ir.Constant(ir.IntType(64), nbytes)

    return types.int64(lanes, like), codegen


@intrinsic
def choose(typingctx, condition, a, b):
    """The elements of `a` where the condition holds, those of `b` elsewhere."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return a(condition, a, b), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """``a * b + c``, rounded once."""

    def codegen(context, builder, signature, args):
        return call_overloaded(builder, "fma", *args)

    return a(a, b, c), codegen


@intrinsic
def magnitude(typingctx, a):
    """The elements without their signs."""

    def codegen(context, builder, signature, args):
        return call_overloaded(builder, "fabs", *args)

    return a(a), codegen


@intrinsic
def root(typingctx, a):
    """The square root."""

    def codegen(context, builder, signature, args):
        return call_overloaded(builder, "sqrt", *args)

    return a(a), codegen


@intrinsic
def widen(typingctx, a):
    """The same numbers as doubles."""
    kind = Vector(a.lanes, types.float64)

    def codegen(context, builder, signature, args):
        return args[0] if kind == a else builder.fpext(args[0], context.get_value_type(kind))

    return kind(a), codegen


@intrinsic
def narrow(typingctx, a, like):
    """Doubles rounded to the dtype of `like`."""
    kind = Vector(a.lanes, like)

    def codegen(context, builder, signature, args):
        return args[0] if kind == a else builder.fptrunc(args[0], context.get_value_type(kind))

    return kind(a, like), codegen


@intrinsic
def load_bytes(typingctx, at, like):
    """Whole numbers of a byte each at address `at`, as a vector like `like`."""

    def codegen(context, builder, signature, args):
        kind = args[1].type
        short = ir.VectorType(ir.IntType(8), kind.count)
        found = builder.load(builder.inttoptr(args[0], PTR), align=1, typ=short)
        return builder.uitofp(found, kind)

    return like(types.int64, like), codegen


@intrinsic
def store_bytes(typingctx, to, value):
    """Write the elements of a vector, whole numbers of 0 to 255, to address `to`, a byte each."""

    def codegen(context, builder, signature, args):
        short = ir.VectorType(ir.IntType(8), args[1].type.count)
        builder.store(builder.fptoui(args[1], short), builder.inttoptr(args[0], PTR), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic
def store_first_bytes(typingctx, to, count, value):
    """`store_bytes` of the first `count` elements."""

    def codegen(context, builder, signature, args):
        to, count, value = args
        for i in range(value.type.count):
            wanted = builder.icmp_signed("<", ir.IntType(64)(i), count)
            with builder.if_then(wanted):
                one = builder.extract_element(value, ir.IntType(32)(i))
                at = builder.inttoptr(builder.add(to, ir.IntType(64)(i)), PTR)
                builder.store(builder.fptoui(one, ir.IntType(8)), at, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), codegen


def _halved(builder: Any, value: Any, join: Any) -> Any:
    """One element of a vector's: its halves are joined until one is left."""
    while value.type.count > 1:
        half = value.type.count // 2
        kind = ir.VectorType(ir.IntType(32), half)
        low, high = (
            builder.shuffle_vector(value, value, ir.Constant(kind, list(range(i, i + half))))
            for i in (0, half)
        )
        value = join(low, high)
    return builder.extract_element(value, ir.IntType(32)(0))


@intrinsic
def total(typingctx, a):
    """The sum of a vector's elements: halves are added until one is left."""

    def codegen(context, builder, signature, args):
        return _halved(builder, args[0], lambda low, high: plain(builder.fadd(low, high)))

    return a.element(a), codegen


@intrinsic
def largest(typingctx, a):
    """The largest of a vector's elements, which are numbers."""

    def codegen(context, builder, signature, args):
        def larger(low, high):
            return builder.select(plain(builder.fcmp_ordered(">", high, low)), high, low)

        return _halved(builder, args[0], larger)

    return a.element(a), codegen
