"""Peak memory of a network's step or prediction, each library in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comparison.networks import NETWORKS, NetworkCase
from comparison.options import makers
from comparison.peers.fastconv import Fastconv
from comparison.rows import OURS

STEPS = 3
# Memory that is freed goes back to the system at once (glibc), or a step would find it in the heap.
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
# The smaller peak counts.
VARIANTS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "pytorch": ({"formats": ("contiguous_format",)}, {"formats": ("channels_last",)}),
}
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peak_bytes(library: str, case: NetworkCase, threads: int) -> int:
    """Bytes that a new process needs for the case: weights, one batch, all that steps allocate.

    Growth of the resident set until its high-water mark during STEPS calls after the first, from
    what the process had when it had computed the same network for one image. Linux only.
    """
    words = (library, case.network.name, case.batch, case.product, threads)
    return min(
        int(_python(f"from comparison.memory import child; child(*{words!r}, {options!r})"))
        for options in VARIANTS.get(library, ({},))
    )


def child(
    library: str, network: str, batch: int, product: str, threads: int, options: dict[str, Any]
) -> None:
    """Print the peak: what runs in the new process."""
    if library == "pytorch":
        options = {"gradients": product != "predict", **options}
    adapter = Fastconv() if library == OURS else makers(library, **{library: options})[library]()
    drawn = NetworkCase(NETWORKS[network], batch, product)
    case = NetworkCase(drawn.network, batch, product, drawn.batches[0])
    del drawn

    def warm() -> None:
        with adapter.threads(threads):
            adapter.prepare(case.alone()).run()

    # In a thread that ends: scratch that a thread keeps between calls is gone with it.
    thread = threading.Thread(target=warm)
    thread.start()
    thread.join()
    before = _resident("VmRSS")
    with adapter.threads(threads):
        call = adapter.prepare(case)
        call.run()
        CLEAR.write_text("5")  # the high-water mark starts again from here
        for _ in range(STEPS):
            call.run()
        print(max(0, _resident("VmHWM") - before))


def _resident(key: str) -> int:
    """A size in bytes from the process's status."""
    found = re.search(rf"^{key}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def _python(code: str) -> str:
    """Run code in a new process and return what it prints; its traceback is shown if it fails."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **RETURN_MEMORY, "PYTHONPATH": path.rstrip(os.pathsep)},
    )
    if result.returncode:
        sys.stderr.write(result.stderr)
        raise SystemExit(f"a child process ended with status {result.returncode}")
    return result.stdout.split()[-1]
