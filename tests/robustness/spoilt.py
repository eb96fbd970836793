"""Ways to make a call wrong, with the error that each must raise."""

from __future__ import annotations

import math

import numpy as np
from drawn import WithPlans
from hypothesis import strategies as st

INTEGERS = ("int64", "bool", "uint8")  # which `max_pool` takes, and nothing else does
WRONG_DTYPES = ("int64", "bool", "complex64", "object", "longdouble", "U1", "uint8")
GEOMETRY = ("stride", "dilation", "padding", "window")
ILLEGAL = (0, -1, (), (1, 0, 1, 1), -(2**63))
NOT_INTEGERS = (1.5, True, math.nan, 2 + 0j, (1.0,), b"1", object())
HUGE = (2**62, 2**63 - 1, 2**64)


@st.composite
def spoils(draw, call, fits):
    """(error, change): ``change(call)`` spoils it, and returns an `out` to call it with, or None.

    Where something else is wrong with the call too (its geometry need not fit), the other error
    may come first.
    """
    ways = [_operand_kinds(call), *([_out(call)] if fits else [])]
    if call.function != "relu_backward":
        ways += [_option(call), _wrong_values(call)]
    return draw(draw(st.sampled_from(ways)))


def _operand_kinds(call):
    """An operand of a wrong type."""
    names = [n for n in call.operands if n != "argmax"]
    wrong = [d for d in WRONG_DTYPES if call.function != "max_pool" or d not in INTEGERS]

    def wrong_dtype(name, dtype):
        return TypeError, lambda c: _replace(c, name, lambda a: a.astype(dtype))

    def masked(name):
        return TypeError, lambda c: _replace(c, name, np.ma.masked_array)

    def matrix(name):
        return ValueError, lambda c: _replace(c, name, _as_matrix)

    wrong = [
        d for d in WRONG_DTYPES if call.function != "max_pool" or np.dtype(d).kind not in "biu"
    ]
    name = st.sampled_from(names)
    return st.one_of(
        st.builds(wrong_dtype, name, st.sampled_from(wrong)),
        st.builds(masked, name),
        st.builds(matrix, name),
    )


def _as_matrix(a):
    return np.matrix(np.ones((2, 2), a.dtype))


def _replace(call, name, change):
    call.operands[name] = change(call.operands[name])


def _option(call):
    """An option of a wrong type or value."""
    names = [n for n in GEOMETRY if n in call.options]
    has_window = call.function.split("_")[0] in ("max", "avg", "im2col", "col2im")
    names += ["window"] if has_window else []
    rank = max(a.ndim for a in call.operands.values()) - 2

    def change(error, name, value):
        def apply(c):
            if name == "window":
                c.rest = (*c.rest[:-1], value)
            else:
                c.options[name] = value

        return error, apply

    def spoil(error, names, values):
        return st.builds(change, st.just(error), st.sampled_from(names), st.sampled_from(values))

    positive = [n for n in names if n != "padding"]
    return st.one_of(
        spoil(ValueError, positive, ILLEGAL),
        spoil(TypeError, positive, NOT_INTEGERS),
        spoil(ValueError, ["padding"], (-1, (0, -1), "foo", "2", *HUGE)),
        spoil(TypeError, ["padding"], (1.5, True, math.nan, (1.0,) * rank)),
        spoil(ValueError, ["data_format"], ("NCHW", "")),
        spoil(TypeError, ["data_format"], (None, 3)),
    )


def _wrong_values(call):
    """Operands that do not fit each other: always an error."""
    ways = []
    if "w" in call.operands:
        ways.append(lambda c: _replace(c, "w", lambda a: a[..., None]))
        ways.append(lambda c: _replace(c, "w", lambda a: a[:0]))
    if "b" in call.operands:
        ways.append(lambda c: _replace(c, "b", lambda a: np.append(a, a[:1])))
    if "dy" in call.operands:
        ways.append(lambda c: _replace(c, "dy", lambda a: np.concatenate([a, a[:1], a[:1]])))
        ways.append(lambda c: _replace(c, "dy", lambda a: a[None]))
    if "argmax" in call.operands:
        ways.append(lambda c: _replace(c, "argmax", lambda a: a[..., :-1]))
        ways.append(lambda c: _replace(c, "argmax", lambda a: a.astype("int32")))
        ways.append(lambda c: _replace(c, "argmax", lambda a: a + 2**40))
    if "x" in call.operands:
        ways.append(lambda c: _replace(c, "x", lambda a: a[:, :0]))
        ways.append(lambda c: _replace(c, "x", lambda a: a.ravel()))
    if "cols" in call.operands:
        ways.append(lambda c: _replace(c, "cols", lambda a: a[..., :-1]))
    fits = [w for w in ways if _is_wrong(call, w)]
    return st.sampled_from(fits).map(lambda w: (ValueError, w))


def _is_wrong(call, way):
    """A change of nothing (an empty dy doubled) spoils nothing."""
    before = dict(call.operands)
    way(call)
    changed = any(
        a.shape != before[n].shape or a.dtype != before[n].dtype or not np.array_equal(a, before[n])
        for n, a in call.operands.items()
    )
    call.operands.update(before)
    return changed


def _out(call):
    """An `out` that cannot take the result."""
    if call.function in ("im2col", "col2im"):
        return _operand_kinds(call)
    many = "backward" in call.function and call.function.startswith(("conv", "plan"))

    def read_only(c):
        result = c.run(WithPlans())
        out = np.full_like(result[0] if isinstance(result, tuple) else result, 7)
        out.flags.writeable = False
        return (out,) * 3 if many else out

    def shape(c):
        out = np.full((1, 2, 3, 4, 5, 6, 7), 7, np.float32)
        return (out,) * 3 if many else out

    def kind(c):
        return ([7.0], [7.0], [7.0]) if many else [7.0]

    ways = [(ValueError, read_only), (ValueError, shape), (TypeError, kind)]
    return st.sampled_from(ways)
