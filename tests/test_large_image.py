"""The benchmark of one large image, on a small one: both ways give the bits of the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "large_image.py"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")
def test_both_ways_give_the_bits_of_the_whole():
    command = [sys.executable, str(SCRIPT), "--side", "1024", "--chunk", "300"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [(row[0], row[-1]) for row in rows] == [("zarr", "yes"), ("dask", "yes")]
