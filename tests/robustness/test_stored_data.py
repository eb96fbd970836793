"""Data larger than the memory that training takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("stored_run.py")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")
def test_a_zarr_is_trained_on_in_the_memory_of_a_few_batches(tmp_path):
    """A batch of 32 images is 6 MB as floats; the data are 150 MB, as floats 600.

    The same script with ``--megabytes 2000`` is the run at full size.
    """
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--megabytes", "150"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["data"] > 149e6
    assert found["peak"] - found["before"] < 100e6
    assert found["val_accuracy"] > 0.9


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")
def test_two_workers_predict_a_zarr_larger_than_their_memory(tmp_path):
    """Images in chunks, with halos that come from other workers."""
    script = SCRIPT.with_name("cluster_run.py")
    command = [sys.executable, str(script), str(tmp_path), "--megabytes", "800", "--limit", "700"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["data"] > 700e6 > max(found["peaks"])
    assert len(found["peaks"]) == 2
    assert found["same"]
