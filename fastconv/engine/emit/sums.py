"""LLVM IR of the batched deltas: the bias's sums in float64, and the activation's mask.

Contract
--------
``emit_plane_sums`` adds to the sums of type double at `to` those of channels whose pixels lie one
behind the other. Pixels i, i + 4, i + 8, ... are a chain of additions, as in `loops.bias_grad`;
those that are left of count % 4 go to the first. The sum is ``(chain 0 + chain 1) + (chain 2 +
chain 3)``. The four chains of a channel are the lanes of a vector, and those of several channels
hide the latency. Channel j is at ``at + j*step`` and its sum at ``to + 8*j``. Addresses and steps
are in bytes; every access has the alignment of one byte.

``emit_mask`` writes VL elements at `to`: those at `dy` where the ones at `y` are above 0, else +0;
so also where `y` is NaN. There is no branch: on half of the ReLUs off, at random, the processor
guessed wrong so often that the loop took 7 to 20 times as long. Elements of type i16 are float16.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastconv.engine.emit.values import I64, PTR, not_unrolled

__all__ = ["emit_mask", "emit_plane_sums"]

CHAINS = 4
# Bits of the positive float16 and infinity: 1 to INFINITY; NaN and what is negative lie above.
INFINITY = 0x7C00


def emit_mask(builder: Any, element: Any, lanes: int, dy: Any, y: Any, to: Any) -> None:
    """Emit the mask of one vector at the builder's position."""
    kind = ir.VectorType(element, lanes)
    zero = ir.Constant(kind, None)
    errors, outputs = (builder.load(builder.inttoptr(at, PTR), align=1, typ=kind) for at in (dy, y))
    if isinstance(element, ir.IntType):
        one, end = (ir.Constant(kind, [n] * lanes) for n in (1, INFINITY))
        positive = builder.icmp_unsigned("<", builder.sub(outputs, one), end)
    else:
        positive = builder.fcmp_ordered(">", outputs, zero)
    passed = builder.select(positive, errors, zero)
    builder.store(passed, builder.inttoptr(to, PTR), align=1)


def emit_plane_sums(builder: Any, element: Any, planes: int, at: Any, step: Any, count: Any,
                    to: Any) -> None:  # fmt: skip
    """Emit the sums of some channels at the builder's position."""
    chains, wide = ir.VectorType(element, CHAINS), ir.VectorType(ir.DoubleType(), CHAINS)
    size = I64(8 if isinstance(element, ir.DoubleType) else 4)
    starts = [builder.add(at, builder.mul(I64(j), step)) for j in range(planes)]

    def plus(total: Any, i: Any, j: int) -> Any:
        kind = chains if total.type == wide else element
        return _add(builder, total, builder.add(starts[j], builder.mul(i, size)), kind)

    whole = builder.and_(count, I64(-CHAINS))
    sums = _loop(builder, I64(0), whole, [ir.Constant(wide, None)] * planes, plus, CHAINS)
    lanes = [[builder.extract_element(v, ir.IntType(32)(i)) for i in range(CHAINS)] for v in sums]
    firsts = _loop(builder, whole, count, [lane[0] for lane in lanes], plus, 1)
    for j, (first, lane) in enumerate(zip(firsts, lanes, strict=True)):
        _add_to(builder, builder.add(to, I64(8 * j)), [first, *lane[1:]])


def _add(builder: Any, total: Any, where: Any, kind: Any) -> Any:
    """A sum in float64 and what lies at an address."""
    value = builder.load(builder.inttoptr(where, PTR), align=1, typ=kind)
    return builder.fadd(total, value if kind == total.type else builder.fpext(value, total.type))


def _add_to(builder: Any, to: Any, sums: Any) -> None:
    """Add the sum of the four chains to what lies at an address."""
    total = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
    to = builder.inttoptr(to, PTR)
    before = builder.load(to, align=1, typ=total.type)
    builder.store(builder.fadd(before, total), to, align=1)


def _loop(builder: Any, begin: Any, end: Any, sums: Any, plus: Any, every: int) -> list[Any]:
    """``sums[j] = plus(sums[j], i, j)`` for i = begin, begin + every, ... below `end`."""
    before = builder.block
    loop, done = builder.append_basic_block("pixels"), builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed("<", begin, end), loop, done)
    builder.position_at_end(loop)
    i, phis = builder.phi(I64), [builder.phi(total.type) for total in sums]
    later = [plus(phi, i, j) for j, phi in enumerate(phis)]
    i_next = builder.add(i, I64(every))
    turn = builder.cbranch(builder.icmp_signed("<", i_next, end), loop, done)
    turn.set_metadata("llvm.loop", not_unrolled(builder.module))
    i.add_incoming(begin, before)
    i.add_incoming(i_next, loop)
    builder.position_at_end(done)
    ends = [builder.phi(total.type) for total in sums]
    for phi, result, first, after in zip(phis, ends, sums, later, strict=True):
        for node in (phi, result):
            node.add_incoming(first, before)
            node.add_incoming(after, loop)
    return ends
