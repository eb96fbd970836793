"""What nopython code asks the kept calls with: words on its own stack, as intrinsics.

`request` makes room for a request, the functions of `put` write its key, `found` looks whether
there is a kept call, `target`, `scratch` and `done` make it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from fastconv.engine import requests as r

__all__ = ["askable", "done", "found", "key_of", "learn_shelf", "put", "put_array", "put_number",
           "request", "result_shape", "scratch_bytes", "target"]  # fmt: skip

I64, BYTE = ir.IntType(64), ir.IntType(8)
LINE = 64  # bytes of a cache line, on which scratch begins
# Forms of a value in a key; of tuples and arrays the length, or the axes, are added.
NONE, NUMBER, TEXT, TRUTH, TUPLE, PAIRS, ARRAY = 0, 1, 2, 3, 16, 32, 64
LONGEST_TUPLE, LONGEST_TEXT = 5, 16


def askable(*values: Any, out: Any) -> bool:
    """Whether a key can be made of arguments of these types, and `out` taken as it is."""
    if isinstance(out, types.Array) and not out.mutable:
        return False
    return not isinstance(out, types.Optional) and all(map(_writable, values))


def _writable(value: Any) -> bool:
    value = value.type if isinstance(value, types.Optional) else value
    if isinstance(value, types.BaseTuple):
        return 0 < len(value) <= LONGEST_TUPLE and all(map(_is_number_or_pair, value))
    plain = (types.Integer, types.Boolean, types.NoneType, types.Omitted, types.UnicodeType,
             types.StringLiteral, types.Array)  # fmt: skip
    return not isinstance(value, types.Type) or isinstance(value, plain)


def _is_number_or_pair(value: Any) -> bool:
    if isinstance(value, types.BaseTuple):
        return len(value) == 2 and all(isinstance(n, types.Integer) for n in value)
    return isinstance(value, types.Integer)


def _word(builder: Any, request: Any, at: Any) -> Any:
    """Where a word of a request is."""
    pointer = builder.inttoptr(request, I64.as_pointer())
    return builder.gep(pointer, [I64(at) if isinstance(at, int) else at])


def _key(builder: Any, request: Any, at: Any, i: int) -> Any:
    return _word(builder, request, builder.add(at, I64(r.REQUEST_KEY + i)))


@intrinsic
def request(typingctx):
    """The address of a request on the caller's stack."""

    def codegen(context, builder, signature, args):
        room = cgutils.alloca_once(builder, I64, size=r.REQUEST_WORDS)
        return builder.ptrtoint(room, I64)

    return types.int64(), codegen


# ------------------------------------------------------------------------- keys


def key_of(request: int, words: int) -> list[int]:
    """The words of a key, for Python."""
    return list((ctypes.c_int64 * words).from_address(request + 8 * r.REQUEST_KEY))


def _length(value: Any) -> int:
    """Words of a value of a type in a key."""
    if isinstance(value, types.Optional):
        return _length(value.type)
    if isinstance(value, types.Array):
        return 1 + 2 * value.ndim
    if isinstance(value, types.UnicodeType | types.StringLiteral):
        return 2 + LONGEST_TEXT // 8
    if isinstance(value, types.BaseTuple):
        return 1 + sum(2 if isinstance(n, types.BaseTuple) else 1 for n in value)
    return 1 if isinstance(value, types.NoneType) else 2


def _words(context: Any, builder: Any, kind: Any, value: Any) -> list[Any]:
    """Form and words of a value in a key; of Optional what is in it."""
    if isinstance(kind, types.NoneType):
        return [I64(NONE)]
    if isinstance(kind, types.StringLiteral):
        text = kind.literal_value.encode()
        known = text[:LONGEST_TEXT].ljust(LONGEST_TEXT, b"\0")
        return [I64(TEXT), I64(len(text)), *(I64(int(n)) for n in np.frombuffer(known, np.int64))]
    if isinstance(kind, types.UnicodeType):
        return _text(context, builder, kind, value)
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        form = ARRAY * kind.dtype.bitwidth + 8 * isinstance(kind.dtype, types.Integer) + kind.ndim
        sizes = cgutils.unpack_tuple(builder, array.shape, kind.ndim)
        return [I64(form), *sizes, *cgutils.unpack_tuple(builder, array.strides, kind.ndim)]
    if isinstance(kind, types.BaseTuple):
        parts = zip(kind, cgutils.unpack_tuple(builder, value, len(kind)), strict=True)
        # which of its elements are pairs
        pairs = sum(2**i for i, n in enumerate(kind) if isinstance(n, types.BaseTuple))
        found = [I64(TUPLE + len(kind) + PAIRS * pairs)]
        for n, part in parts:
            if isinstance(n, types.BaseTuple):
                found += [context.cast(builder, each, of, types.int64)
                          for of, each in zip(n, cgutils.unpack_tuple(builder, part, 2),
                                              strict=True)]  # fmt: skip
            else:
                found.append(context.cast(builder, part, n, types.int64))
        return found
    form = TRUTH if isinstance(kind, types.Boolean) else NUMBER
    if isinstance(kind, types.Literal):
        return [I64(form), I64(int(kind.literal_value))]
    return [I64(form), context.cast(builder, value, kind, types.int64)]


def _text(context: Any, builder: Any, kind: Any, value: Any) -> list[Any]:
    """A text's length and first bytes; every text that means something is short, and ASCII."""
    text = cgutils.create_struct_proxy(types.unicode_type)(context, builder, value=value)
    room = cgutils.alloca_once(builder, I64, size=LONGEST_TEXT // 8)
    at = builder.bitcast(room, BYTE.as_pointer())
    cgutils.memset(builder, at, I64(LONGEST_TEXT), 0)
    short = builder.icmp_unsigned("<=", text.length, I64(LONGEST_TEXT))
    bytes_each = builder.icmp_unsigned("==", text.is_ascii, text.is_ascii.type(1))
    with builder.if_then(builder.and_(short, bytes_each)):
        cgutils.raw_memcpy(builder, at, text.data, text.length, 1)
    form = builder.select(bytes_each, I64(TEXT), I64(-1))
    words = [builder.load(builder.gep(room, [I64(i)]), typ=I64) for i in range(LONGEST_TEXT // 8)]
    return [form, text.length, *words]


def _put(context: Any, builder: Any, request: Any, at: Any, kind: Any, value: Any) -> Any:
    """Write a value to a key, if it can be; returns where the next goes."""
    if not _writable(kind):
        return at
    if not isinstance(kind, types.Optional):
        for i, word in enumerate(_words(context, builder, kind, value)):
            builder.store(word, _key(builder, request, at, i))
        return builder.add(at, I64(_length(kind)))
    optional = context.make_helper(builder, kind, value)
    given = cgutils.as_bool_bit(builder, optional.valid)
    with builder.if_else(given) as (there, not_there):
        with there:
            for i, word in enumerate(_words(context, builder, kind.type, optional.data)):
                builder.store(word, _key(builder, request, at, i))
        with not_there:
            builder.store(I64(NONE), _key(builder, request, at, 0))
    return builder.select(given, builder.add(at, I64(_length(kind))), builder.add(at, I64(1)))


@intrinsic(prefer_literal=True)
def put(typingctx, request, at, value):
    """Write an option to the key at word `at`; returns where the next goes."""

    def codegen(context, builder, signature, args):
        return _put(context, builder, args[0], args[1], value, args[2])

    return types.int64(types.int64, types.int64, value), codegen


@intrinsic
def put_number(typingctx, request, at, number):
    """Write a number of the implementation's own to the key."""

    def codegen(context, builder, signature, args):
        builder.store(args[2], _key(builder, args[0], args[1], 0))
        return builder.add(args[1], I64(1))

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def put_array(typingctx, request, at, operand, array):
    """Write an array, or None, to the key, and its address as that of an operand."""

    def codegen(context, builder, signature, args):
        place = _word(builder, args[0], builder.add(args[2], I64(r.REQUEST_OPERANDS)))
        builder.store(I64(0), place)
        kind, value = array, args[3]
        if isinstance(kind, types.Optional):
            optional = context.make_helper(builder, kind, value)
            with builder.if_then(cgutils.as_bool_bit(builder, optional.valid)):
                builder.store(_address(context, builder, kind.type, optional.data), place)
        elif isinstance(kind, types.Array):
            builder.store(_address(context, builder, kind, value), place)
        return _put(context, builder, args[0], args[1], kind, value)

    return types.int64(types.int64, types.int64, types.int64, array), codegen


def _address(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return builder.ptrtoint(context.make_array(kind)(context, builder, value).data, I64)


# ------------------------------------------------------------------------- calls


def _shelf(builder: Any) -> Any:
    """The word of this compiled code that knows where the kept calls are; 0 when it is loaded."""
    name = "fastconv_shelf"
    found = builder.module.globals.get(name)
    if found is None:
        found = ir.GlobalVariable(builder.module, I64, name)
        found.linkage, found.initializer = "internal", I64(0)
    return found


@intrinsic
def learn_shelf(typingctx, shelf):
    """Remember where the kept calls are; every thread writes the same."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[0], _shelf(builder), "monotonic", 8)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _serve(builder: Any, request: Any, shelf: Any, action: int) -> None:
    kind = ir.FunctionType(ir.VoidType(), [I64, I64])
    entry = builder.load(_word(builder, shelf, r.SHELF_ENTRY), typ=I64)
    builder.call(builder.inttoptr(entry, kind.as_pointer()), [request, I64(action)])


@intrinsic
def found(typingctx, request, at, form):
    """Whether there is a kept call for a key of so many words; it is held until it is `done`.

    There is none where `form` is 0: for such arguments no key can be made.
    """

    def codegen(context, builder, signature, args):
        request, at, form = args
        shelf = builder.load_atomic(_shelf(builder), "monotonic", 8, typ=I64)
        builder.store(shelf, _word(builder, request, r.REQUEST_SHELF))
        builder.store(at, _word(builder, request, r.REQUEST_KEY_WORDS))
        place = _word(builder, request, r.REQUEST_FOUND)
        builder.store(I64(0), place)
        there = builder.select(builder.icmp_signed("!=", form, I64(0)), shelf, I64(0))
        with builder.if_then(builder.icmp_signed("!=", there, I64(0)), likely=True):
            _serve(builder, request, shelf, r.FIND)
        return builder.icmp_signed("!=", builder.load(place, typ=I64), I64(0))

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def result_shape(typingctx, request, like):
    """The shape of the first result, of as many axes as `like` has."""
    kind = types.UniTuple(types.intp, like.ndim)

    def codegen(context, builder, signature, args):
        sizes = [
            builder.load(_word(builder, args[0], r.REQUEST_SHAPE + i), typ=I64)
            for i in range(like.ndim)
        ]
        return context.make_tuple(builder, kind, sizes)

    return kind(types.int64, like), codegen


@intrinsic
def scratch_bytes(typingctx, request):
    """Bytes of scratch, so many more that it can begin on a cache line."""

    def codegen(context, builder, signature, args):
        nbytes = builder.load(_word(builder, args[0], r.REQUEST_SCRATCH), typ=I64)
        return builder.add(nbytes, I64(LINE))

    return types.int64(types.int64), codegen


@intrinsic
def done(typingctx, request, scratch, operand, result, another):
    """Make the call that was found; False if it needs the way through Python.

    `result`, and `another` or None, are operands number `operand` and the next. They and the
    `scratch` are arguments so that they live until the call has been made.
    """

    def codegen(context, builder, signature, args):
        at = _address(context, builder, scratch, args[1])
        at = builder.and_(builder.add(at, I64(LINE - 1)), I64(-LINE))
        builder.store(at, _word(builder, args[0], r.REQUEST_OPERANDS))
        for i, (kind, value) in enumerate(((result, args[3]), (another, args[4]))):
            if isinstance(kind, types.Array):
                place = builder.add(args[2], I64(r.REQUEST_OPERANDS + i))
                address = _address(context, builder, kind, value)
                builder.store(address, _word(builder, args[0], place))
        shelf = builder.load(_word(builder, args[0], r.REQUEST_SHELF), typ=I64)
        _serve(builder, args[0], shelf, r.RUN)
        word = builder.load(_word(builder, args[0], r.REQUEST_DONE), typ=I64)
        return builder.icmp_signed("!=", word, I64(0))

    return types.boolean(types.int64, scratch, types.int64, result, another), codegen


def target(request, like, out):
    """`out`, or a new array for the result, of the dtype and the axes of `like`."""


@overload(target)
def _target(request, like, out):
    if isinstance(out, types.Array):
        return lambda request, like, out: out
    return lambda request, like, out: np.empty(result_shape(request, like), like.dtype)
