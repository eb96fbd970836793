"""Subprocesses with a deadline, and kernels on disk for all of them."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Python:
    """Runs code in a new process: ``python(code, FASTCONV_CACHE_DIR=..., deadline=60)``."""

    deadline = 60

    def start(self, code, **environment):
        environment = {name: str(value) for name, value in environment.items()}
        return subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", code],
            env={**os.environ, "PYTHONPATH": str(HERE), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, process, deadline=None):
        """What it wrote to stdout and stderr. A signal, a failure or a hang fails the test."""
        try:
            out, err = process.communicate(timeout=deadline or self.deadline)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):  # it ended while this one was suspended
                os.killpg(process.pid, signal.SIGABRT)  # children too; each tells where it hangs
                out, err = process.communicate()
                pytest.fail(f"still running after {deadline or self.deadline} s\n{out}\n{err}")
            out, err = process.communicate()
        assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{err}"
        return out.strip(), err.strip()

    def __call__(self, code, deadline=None, **environment):
        return self.finish(self.start(code, **environment), deadline)


@pytest.fixture(scope="session")
def python():
    return Python()


@pytest.fixture(scope="session")
def right(python):
    """The digest, computed on one thread; from here on its kernels are on disk."""
    one = "import work, fastconv as fc; fc.set_num_threads(1); print(work.digest())"
    serial, _ = python(one, deadline=300)
    parallel, _ = python("import work; print(work.digest())", deadline=300)
    assert serial == parallel
    return serial
