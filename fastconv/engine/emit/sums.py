"""LLVM IR of the bias's sums: a vector of channels over pixels, in float64.

Contract
--------
``emit_sums`` adds VL sums of type double to those at `to`: of VL elements each at ``at + i*step``,
i < count. Pixels i, i + 4, i + 8, ... are a chain of additions, so that four hide each other's
latency; those that are left of count % 4 go to the first chain. The sum is ``(chain 0 + chain 1) +
(chain 2 + chain 3)``. Addresses and steps are in bytes; every access has the alignment of one byte.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastconv.engine.emit.values import I64, PTR, not_unrolled

__all__ = ["emit_sums"]

CHAINS = 4


def emit_sums(builder: Any, element: Any, lanes: int, at: Any, step: Any, count: Any,
              to: Any) -> None:  # fmt: skip
    """Emit the sums of one vector of channels at the builder's position."""
    kind, wide = ir.VectorType(element, lanes), ir.VectorType(ir.DoubleType(), lanes)

    def plus(total: Any, i: Any) -> Any:
        where = builder.inttoptr(builder.add(at, builder.mul(i, step)), PTR)
        value = builder.load(where, align=1, typ=kind)
        return builder.fadd(total, value if kind == wide else builder.fpext(value, wide))

    whole = builder.and_(count, I64(-CHAINS))
    sums = _loop(builder, I64(0), whole, [ir.Constant(wide, None)] * CHAINS, plus)
    sums[:1] = _loop(builder, whole, count, sums[:1], plus)
    total = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
    to = builder.inttoptr(to, PTR)
    builder.store(builder.fadd(builder.load(to, align=1, typ=wide), total), to, align=1)


def _loop(builder: Any, begin: Any, end: Any, sums: Any, plus: Any) -> list[Any]:
    """Sum j takes the pixels ``begin + j``, and every len(sums)-th after it, up to `end`."""
    before = builder.block
    loop, done = builder.append_basic_block("pixels"), builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed("<", begin, end), loop, done)
    builder.position_at_end(loop)
    i, phis = builder.phi(I64), [builder.phi(total.type) for total in sums]
    later = [plus(phi, builder.add(i, I64(j))) for j, phi in enumerate(phis)]
    i_next = builder.add(i, I64(len(sums)))
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
