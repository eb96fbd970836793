"""`fastconv` inside anybody's ``@njit`` functions; there is nothing to import.

Numba finds `init` through the entry point ``numba_extensions`` when it compiles for the first time.
From then on these are callable from nopython code, in ``prange`` too, with the arguments that they
have in Python: `conv`, `conv_input_grad`, `conv_kernel_grad`, `max_pool`, `max_pool_backward`,
`avg_pool`, `avg_pool_backward`.

Their keywords must stand outside of any ``try`` block.

The first call of a problem goes through Python, holding the GIL while it plans. What it planned is
kept, and the next call of the same problem, from whichever function or thread, finds it and calls
the engine's machine code itself, without Python. Either computes on the thread that it comes from:
who wants several threads writes the ``prange``. Types that do not fit are a ``TypingError`` when
the caller is compiled; sizes that do not fit are the ValueError that Python code gets.

How calls are found (`products`, `pools`, `request`; `plans.calls`; `engine.loops.kept`):

- the key is all that a call depends on but addresses and elements: the function, and of every
  argument its form, dtype, shape, steps or value. All its words are compared, not a digest alone;
- a call that raised is never kept: what is wrong is said by Python, in the same words as ever;
- there is room for some 1,000 calls, in memory that is never given back. Readers count themselves
  in before they look at a call, and a new one takes the place only of one that nobody reads, so
  none is changed or freed under a reader; one thread at a time writes, behind a lock that a fork
  waits for, and a child has what its parent had;
- compiled code knows no address: a word of its own, 0 when it is loaded, learns the place of the
  calls at its first way through Python. So ``cache=True`` keeps nothing of a process; and code that
  was compiled for other sources than these learns nothing, and goes through Python each time;
- a call that takes long lets other Python threads run, if its thread has the GIL;
- what needs more than one call (copies of operands, empty arrays), ``out=a if use else None``, and
  everything while a ``with algorithm("fast")`` is open in some thread, goes through Python.
"""

from __future__ import annotations

from fastconv._extras import host

host("numba", "numba")

from numba.extending import overload  # noqa: E402

import fastconv as fc  # noqa: E402
from fastconv.adapters.numba import pools, products  # noqa: E402

__all__ = ["init"]


def init() -> None:
    """Tell Numba about the functions; called once by Numba itself."""
    for function, implementation in (products.IMPLEMENTATIONS | pools.IMPLEMENTATIONS).items():
        overload(function, prefer_literal=function is fc.max_pool)(implementation)
