"""What the environment says: threads, CPU quotas, Numba's configuration, packages not there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import processors, threads

VARIABLES = ("FASTCONV_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS")
NO_JIT = "NUMBA_DISABLE_JIT"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Eight processors, no variables, and control groups that a test may write."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processors, "processors", lambda: 8)
    monkeypatch.setattr(threads, "processors", lambda: 8)
    monkeypatch.setattr(processors, "CGROUPS", tmp_path)
    monkeypatch.setattr(processors, "OWN_CGROUPS", tmp_path / "own")
    threads._from_environment.cache_clear()
    yield tmp_path
    threads._from_environment.cache_clear()


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, 8),
        ({"FASTCONV_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"NUMBA_NUM_THREADS": "3"}, 3),
        ({"NUMBA_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 2),
        ({"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, 2),
        ({"OMP_NUM_THREADS": "16"}, 8),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"FASTCONV_NUM_THREADS": "5", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}, 5),
        ({"FASTCONV_NUM_THREADS": " 6 "}, 6),
        ({"FASTCONV_NUM_THREADS": "", "OMP_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "many", "NUMBA_NUM_THREADS": "0"}, 8),
        ({"OMP_NUM_THREADS": "-1", "NUMBA_NUM_THREADS": "9" * 5000}, 8),
    ],
)
def test_the_environment_sets_the_number_of_threads(host, monkeypatch, variables, count):
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert fc.get_num_threads() == count
    assert threads.describe().startswith(f"{count} of 8: ")
    with fc.num_threads(7):  # the caller's word is last
        assert fc.get_num_threads() == 7
        assert threads.describe() == "7 of 8: num_threads"


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1,2", "9" * 5000, "²"])
def test_an_unusable_number_of_ours_is_an_error_that_names_it(host, monkeypatch, text):
    monkeypatch.setenv("FASTCONV_NUM_THREADS", text)
    with pytest.raises(ValueError, match="FASTCONV_NUM_THREADS="):
        fc.get_num_threads()
    assert "FASTCONV_NUM_THREADS=" in threads.describe()
    with fc.num_threads(2):
        assert fc.get_num_threads() == 2


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000\n", 1),
        ("max 100000", None),
        ("-1 100000", None),
        ("0 0", None),
        ("many 1", None),
        ("200000", None),
        ("", None),
        ("9900000 100000", 99),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_cpu_quota_of_a_container(host, version, text, count):
    if version == 2:
        write(host, cpu_max=text)
    else:
        first, _, period = text.replace("max", "-1").partition(" ")
        write(host / "cpu", **{"cpu_cfs_quota_us": first, "cpu_cfs_period_us": period})
    assert processors.quota() == count
    assert fc.get_num_threads() == min(8, count or 8)
    if count and count < 8:
        assert threads.describe() == f"{count} of 8: the CPU quota"


def test_the_quota_of_this_process_and_of_the_groups_above_it(host):
    (host / "own").write_text("0::/user.slice/some:name.scope\n")
    write(host / "user.slice", cpu_max="300000 100000")
    write(host / "user.slice" / "some:name.scope", cpu_max="500000 100000")
    assert processors.quota() == 3
    (host / "own").write_text("7:memory:/a\n4:cpu,cpuacct:/a/b\n")
    write(host / "cpu" / "a" / "b", cpu_cfs_quota_us="400000", cpu_cfs_period_us="100000")
    assert processors.quota() == 4
    (host / "own").write_text("0::/../elsewhere\nnonsense\n")
    assert processors.quota() is None


def test_the_least_of_quota_and_variables(host, monkeypatch):
    write(host, cpu_max="200000 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert fc.get_num_threads() == 2
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "4")  # ours wins
    threads._from_environment.cache_clear()
    assert fc.get_num_threads() == 4


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", VARIABLES)
def test_one_variable_is_one_thread(name):
    rest = {other: "" for other in VARIABLES if other != name}
    text = run("import fastconv as fc; print(fc.get_num_threads()); fc.show_config()",
               **rest, **{name: "1"})  # fmt: skip
    assert text.startswith("1\n")
    assert f": {name}=1" in text


def test_without_numbas_compiler_one_error_names_the_variable():
    code = """
import numpy as np, fastconv as fc
x, w, cols = np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1)), np.ones((1, 3, 3, 4))
y, argmax = fc.reference.max_pool(x, 2, return_argmax=True)
calls = [
    lambda: fc.conv(x, w), lambda: fc.conv(x, w), lambda: fc.conv_backward(x[:, :2, :2], x, w),
    lambda: fc.conv_transpose(x, w), lambda: fc.max_pool(x, 2), lambda: fc.avg_pool(x, 2),
    lambda: fc.max_pool_backward(y, argmax, x.shape, 2), lambda: fc.relu_backward(x, x),
    lambda: fc.avg_pool_backward(y, x.shape, 2), lambda: fc.col2im(cols, x.shape, 2),
    lambda: fc.plan_conv(x.shape, w.shape, "float64").forward(x, w), lambda: fc.warmup(),
]
for call in calls:
    try:
        call()
    except RuntimeError as error:
        print(error)
    else:
        print("no error")
fc.show_config()
"""
    lines = run(code, **{NO_JIT: "1"}).splitlines()
    assert all(line.startswith(f"{NO_JIT} is set") for line in lines[:12]), lines
    assert any(line.startswith("numba") and NO_JIT in line for line in lines[12:])


@pytest.mark.parametrize(("name", "text"), [(NO_JIT, "1"), ("FASTCONV_NUM_THREADS", "two")])
@pytest.mark.parametrize("command", ["predict", "warmup", "check", "bench", "train"])
def test_a_command_says_it_in_one_line(name, text, command, tmp_path):
    words = [sys.executable, "-m", "fastconv", command]
    if command == "predict":
        model = fc.nn.Sequential(fc.nn.Conv(1, 2, 3), fc.nn.Flatten(), fc.nn.Dense(8192, 2))
        model.save(tmp_path / "model.npz")
        np.save(tmp_path / "x.npy", np.zeros((66, 66)))
        words += ["model.npz", "x.npy"]
    done = subprocess.run(
        words, env=os.environ | {name: text}, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2, done
    assert re.fullmatch(f".* {command}: error: .*{name}.*\n", done.stderr), done.stderr


def test_from_an_archive(tmp_path):
    source = Path(fc.__file__).parent
    tables = source / "tables", source.parent / "benchmarks" / "problems"
    with zipfile.ZipFile(tmp_path / "fastconv.zip", "w") as archive:
        for path in source.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                archive.write(path, path.relative_to(source.parent))
        for path in next(filter(Path.is_dir, tables)).glob("*.txt"):
            archive.write(path, f"fastconv/tables/{path.name}")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'fastconv.zip')!r})"
    code += """
import numpy as np, fastconv as fc
from fastconv import guide, problems
from fastconv.explain.notebooks import lessons
x, w = np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1))
print(fc.__file__)
print(fc.conv(x, w).sum(), len(problems.read_problems(problems.find_table("lenet5_mnist"))))
print(len(problems.table_names()) > 3, len(lessons()) > 3, len(guide.page("learn")) > 99)
"""
    lines = run(code).splitlines()
    assert lines[0].startswith(str(tmp_path))
    assert lines[1:] == ["36.0 3", "True True True"]


@pytest.mark.parametrize("package", ["scipy", "tbb"])
def test_what_nothing_needs_may_be_absent(package):
    code = f"""
import sys
from importlib import metadata
known = metadata.version
def version(name):
    if name == {package!r}:
        raise metadata.PackageNotFoundError(name)
    return known(name)
metadata.version = version
sys.modules[{package!r}] = None
import fastconv
fastconv.show_config()
"""
    text = run(code)
    assert package != "scipy" or "scipy            not installed" in text
