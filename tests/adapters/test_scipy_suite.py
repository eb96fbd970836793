"""SciPy's own tests of the functions, with fastconv's in their place."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import scipy

HERE = Path(__file__).parent
FILES = ("ndimage/tests/test_filters.py", "signal/tests/test_signaltools.py")
# SciPy 1.17: what passes at least, and what is skipped for the reasons in `scipy_suite`.
PASSED = {"": 2900, "1": 13_000}


@pytest.mark.parametrize("all_sizes", ["", pytest.param("1", marks=pytest.mark.soak)])
def test_scipys_own_tests(tmp_path, all_sizes):
    (tmp_path / "empty.ini").write_text("[pytest]\n")
    files = [Path(scipy.__file__).parent / name for name in FILES]
    words = ["-q", "-p", "no:cacheprovider", "-p", "scipy_suite", "-c", tmp_path / "empty.ini"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, [*words, *files])],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "",
            "FASTCONV_ALL_SIZES": all_sizes,
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    counts = dict(
        reversed(pair) for pair in re.findall(r"(\d+) (\w+)", result.stdout.splitlines()[-1])
    )
    assert int(counts["passed"]) >= PASSED[all_sizes]
