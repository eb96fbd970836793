"""What importing costs and brings, the one source of the version, threads and configuration."""

import os
import subprocess
import sys
import threading
from importlib import metadata, resources
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_import_brings_neither_compiler_nor_hosts():
    loaded = run("import fastconv, sys; print(*sys.modules)").split()
    assert "fastconv" in loaded
    heavy = {"numba", "llvmlite", "scipy", "sklearn", "matplotlib", "rich", "torch", "jax"}
    heavy |= {"onnx", "keras", "fastconv.adapters"}
    assert not heavy.intersection(loaded)


def test_import_brings_little_of_the_standard_library():
    """Each of these would take a tenth of the import, or half of it."""
    code = "import sys, numpy; before = set(sys.modules); import fastconv; "
    new = set(run(code + "print(*(set(sys.modules) - before))").split())
    assert "fastconv" in new
    assert not {"importlib.metadata", "pathlib", "subprocess", "inspect", "json"} & new


def test_submodules_load_when_asked_for():
    code = "import fastconv as fc, sys; print('fastconv.nn' in sys.modules, fc.nn.fit.__name__)"
    assert run(code).split() == ["False", "fit"]
    assert {"cache", "reference", "testing", "nn", "examples"} <= set(dir(fc))
    assert fc.reference.conv.__module__ == "fastconv.reference"
    with pytest.raises(AttributeError, match="no attribute 'convolve'"):
        _ = fc.convolve


def test_public_names_are_documented_and_have_a_naive_twin():
    for name in fc.__all__:
        assert getattr(fc, name).__doc__, name
    from fastconv import functional, reference

    for name in functional.__all__:
        assert callable(getattr(reference, name)), name
        assert ">>>" in getattr(functional, name).__doc__, name


def test_reference_imports_nothing_of_the_package():
    from fastconv import reference

    text = resources.files("fastconv").joinpath("reference.py").read_text()
    imports = [line for line in text.splitlines() if line.strip().startswith(("import ", "from "))]
    assert reference.conv is not fc.conv
    assert not [line for line in imports if "fastconv" in line]


def test_typed_and_versioned():
    assert resources.files("fastconv").joinpath("py.typed").is_file()
    assert metadata.version("fastconv") == fc.__version__
    citation = Path(__file__).parents[1] / ".github" / "CITATION.cff"
    assert f"version: {fc.__version__}\n" in citation.read_text(encoding="utf-8")


def test_threads():
    before = fc.get_num_threads()
    with fc.num_threads(3):
        assert fc.get_num_threads() == 3
        seen = []
        thread = threading.Thread(target=lambda: seen.append(fc.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [before]  # the block is this thread's
    assert fc.get_num_threads() == before
    try:
        fc.set_num_threads(5)
        assert fc.get_num_threads() == 5
    finally:
        fc.set_num_threads(before)
    with pytest.raises(KeyError), fc.num_threads(2):
        raise KeyError
    assert fc.get_num_threads() == before


def test_threads_of_numba_are_left_alone():
    import numba

    x = np.ones((64, 32, 32, 16), np.float32)
    before = numba.get_num_threads()
    with fc.num_threads(1):
        fc.max_pool(x, 2)
    fc.max_pool(x, 2)
    assert numba.get_num_threads() == before
    numba.set_num_threads(1)  # the caller's wish for their own kernels
    try:
        with fc.num_threads(2):
            fc.max_pool(x, 2)
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_a_forked_child_works_after_the_parent_has_used_threads():
    code = """
import os, numpy as np, fastconv as fc
x = np.ones((64, 32, 32, 16), np.float32); w = np.ones((3, 3, 16, 8), np.float32)
y, p = fc.conv_input_grad(fc.conv(x, w), w, x.shape), fc.max_pool(x, 2)
child = os.fork()
if child == 0:
    same = np.array_equal(y, fc.conv_input_grad(fc.conv(x, w), w, x.shape))
    os._exit(0 if same and np.array_equal(p, fc.max_pool(x, 2)) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if sys.platform == "win32":
        pytest.skip("Windows has no fork")
    assert run(code).strip() == "0"


@pytest.mark.parametrize("layer", ["tbb", "workqueue"])
def test_many_python_threads_at_once(layer):
    code = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np, fastconv as fc
x = np.random.default_rng(0).normal(size=(64, 16, 16, 16)).astype('float32')
y, argmax = fc.max_pool(x, 2, return_argmax=True)
w = np.ones((3, 3, 16, 16), 'float32')
def products():
    z = fc.conv(x, w)
    return b"".join(a.tobytes() for a in (z, *fc.conv_backward(z, x, w)))
right = products()
def work(_):
    return np.array_equal(fc.max_pool(x, 2), y) and np.array_equal(
        fc.max_pool_backward(y, argmax, x.shape, 2), dx) and products() == right
dx = fc.max_pool_backward(y, argmax, x.shape, 2)
with ThreadPoolExecutor(8) as pool:
    print(all(pool.map(work, range(200))), fc.threads.threading_layer())
"""

    output = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_THREADING_LAYER": layer},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert output.split() == ["True", layer]


def test_show_config(capsys):
    fc.show_config()
    lines = capsys.readouterr().out.splitlines()
    rows = dict(line.split(None, 1) for line in lines if len(line.split()) > 1)
    assert rows["fastconv"] == fc.__version__
    assert rows["numpy"] == np.__version__
    text = "\n".join(lines)
    for word in ("cpu", "vector width", "threads", "threading layer"):
        assert word in text
    assert text.splitlines()[-1].split(None, 2) == ["kernel", "cache", str(fc.cache.path())]


def test_warmup():
    fc.warmup(ops="relu_backward", dtypes="float64")
    fc.warmup(ops=["conv", "max_pool"], dtypes=["float32"])
    from fastconv import config, functional

    assert set(config._calls(np.dtype("float32"))) == set(functional.__all__)
    with pytest.raises(ValueError, match="ops='convolve'"):
        fc.warmup(ops=["convolve"])
    with pytest.raises(TypeError, match="dtypes is int64"):
        fc.warmup(dtypes=["int64"])
    with pytest.raises(TypeError, match="ops=5 must be a name or several"):
        fc.warmup(5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_after_warmup_no_pooling_kernel_is_missing(dtype, monkeypatch):
    """Windows apart and overlapping, whatever the number of channels."""
    from fastconv.engine import entries

    monkeypatch.setattr(entries, "_others", {})
    entries.pool_address.cache_clear()
    fc.warmup(["max_pool", "max_pool_backward", "avg_pool", "avg_pool_backward"], dtypes=[dtype])
    ready = set(entries._others)
    for C in (1, 2, 3, 4, 7, 8, 16, 17):
        for shape, data_format in (
            ((2, 9, 9, C), "channels_last"),
            ((2, C, 9, 9), "channels_first"),
        ):
            x = np.ones(shape, dtype)
            for window, stride in ((3, 1), (2, 2), (3, 3)):
                options = {"stride": stride, "data_format": data_format}
                fc.max_pool(x, window, **options)
                y, argmax = fc.max_pool(x, window, return_argmax=True, **options)
                fc.max_pool_backward(y, argmax, x.shape, window, **options)
                fc.avg_pool_backward(fc.avg_pool(x, window, **options), x.shape, window, **options)
    assert set(entries._others) == ready


@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_a_long_compilation_says_what_is_happening(level, tmp_path):
    """On an empty cache; through logging, so it can be silenced."""
    code = f"""
import logging, numpy as np, fastconv as fc, fastconv.compiler.once as once
once.PATIENCE = 0.05
logging.getLogger("fastconv").setLevel("{level}")
a = np.ones(4, np.float32)
fc.relu_backward(a, a)
"""
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FASTCONV_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert said.count("compiling") == (1 if level == "WARNING" else 0), said
