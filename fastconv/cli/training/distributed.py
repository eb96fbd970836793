"""``fastconv train --distributed``: the ranks of mpiexec, of which the first alone speaks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from fastconv._extras import host
from fastconv.cli.output import CommandError, one_line, threads_text
from fastconv.processors import OURS
from fastconv.threads import get_num_threads, num_threads

__all__ = ["on_ranks"]


# Where launchers say how many processes they have started: Open MPI, and MPICH with its kin.
COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def _started() -> int:
    """How many processes a launcher has started, if one says so."""
    found = [os.environ.get(name, "") for name in COUNTS]
    return max((int(text) for text in found if text.isdecimal()), default=1)


def on_ranks(work: Callable[[Any, Any], int]) -> int:
    """The exit status of ``work(comm, ranks)``, on all ranks; `ranks` is None where there is one.

    Unless the environment says how many threads there are, the ranks of a machine share those that
    a process alone would have. Only rank 0 prints.
    """
    try:
        world = host("mpi4py.MPI", "mpi").COMM_WORLD
    except (ImportError, RuntimeError) as error:  # mpi4py, or an MPI library, is missing
        raise CommandError(f"--distributed: {one_line(error)}", status=1) from error
    from fastconv.nn.mpi import MPICommunicator
    from fastconv.nn.ranks import RankError, closing_ranks, ranks_of

    communicator = MPICommunicator(world)
    each = get_num_threads()
    if OURS not in os.environ:
        each = max(1, each // communicator.neighbours())
    ranks = ranks_of(communicator)
    if ranks is None and (count := _started()) > 1:
        raise CommandError(
            f"--distributed: {count} processes were started, but mpi4py's MPI library sees one: "
            "the mpiexec of another library has started them",
            status=1,
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(num_threads(each))
        stack.enter_context(closing_ranks(ranks))
        if ranks is None:
            return work(None, None)
        if ranks.first:
            print(f"{ranks.size} ranks of {threads_text(each)} each", flush=True)
            try:
                return work(world, ranks)
            except RankError as error:
                raise CommandError(one_line(error), status=1) from error
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        try:
            return work(world, ranks)
        except (CommandError, RankError):
            return 0  # rank 0 says it, and its status is that of mpiexec
