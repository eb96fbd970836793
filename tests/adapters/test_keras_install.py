"""Keras on NumPy: Keras's own tests without JAX, installing and uninstalling."""

import os
import re
import subprocess
import sys
from pathlib import Path

import fastconv.adapters.keras as adapter

# Without JAX, Keras can be imported after it only.
# isort: split
import keras
import pytest

HERE = Path(__file__).parent
BLOCK = (
    "import sys; sys.path.insert(0, sys.argv[1]); import keras_suite; keras_suite.without_jax()\n"
)


def python(code, *words, environment=None, check=True):
    env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        env=env | (environment or {}),
        capture_output=True,
        text=True,
        check=check,
    )


def test_keras_own_tests_pass_without_jax(tmp_path):
    source = Path(keras.__file__).parent / "src"
    parts = ["ops/nn_test.py", "layers/convolutional", "layers/pooling"]
    files = [source / part for part in parts] + sorted((source / "layers/rnn").glob("conv_lstm*"))
    (tmp_path / "empty.ini").write_text("[pytest]\n")
    words = ["-q", "-p", "no:cacheprovider", "-p", "keras_suite", "-c", tmp_path / "empty.ini"]
    chosen = "(nn_test and (conv or pool)) or convolutional or pooling or conv_lstm"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, [*words, *files]), "-k", chosen],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    counts = dict(
        reversed(pair) for pair in re.findall(r"(\d+) (\w+)", result.stdout.splitlines()[-1])
    )
    # Keras 3.15: 520, and 170 that need a backend with gradients.
    assert int(counts["passed"]) >= 520


def test_uninstall_restores_and_install_has_one_effect():
    nn = sys.modules["keras.src.backend.numpy.nn"]
    ours = {name: getattr(nn, name) for name in adapter.FUNCTIONS}
    adapter.install()
    adapter.uninstall()
    try:
        for name, function in ours.items():
            own = getattr(nn, name)
            assert own is not function
            assert own.__module__ == nn.__name__
        adapter.uninstall()
    finally:
        adapter.install()
    assert {name: getattr(nn, name) for name in adapter.FUNCTIONS} == ours


def test_without_jax_nothing_of_it_is_left():
    code = BLOCK + (
        "import os, keras, numpy as np, fastconv.adapters.keras as a\n"
        "assert 'KERAS_BACKEND' not in os.environ and keras.backend.backend() == 'numpy'\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'jax' or 'backend.jax' in m]\n"
        "x, w = np.ones((1, 4, 4, 1), 'float32'), np.ones((3, 3, 1, 1), 'float32')\n"
        "print(keras.ops.conv(x, w).ravel(), keras.ops.fft((x[0, 0].T, 0 * x[0, 0].T)))\n"
        "a.uninstall()\n"
        "try: keras.ops.conv(x, w)\n"
        "except ImportError as error: print(error)\n"
        "a.install(); print(keras.ops.conv(x, w).sum(), keras.ops.fft2((x[..., 0],) * 2)[0].sum())"
    )
    lines = python(code, HERE).stdout.splitlines()
    assert lines[0].startswith("[9. 9. 9. 9.] (array([[4., 0., 0., 0.]], dtype=float32)")
    assert "JAX is not installed" in lines[1]
    assert "install()" in lines[1]
    assert lines[2] == "36.0 16.0"


def test_install_after_keras():
    """With a Keras that could be imported by itself: here because JAX is stood in for."""
    code = BLOCK + (
        "import keras, fastconv.adapters.keras as a\n"
        "a.uninstall(); del sys.modules['fastconv.adapters.keras']\n"
        "import fastconv.adapters.keras, numpy as np\n"
        "print(keras.ops.conv(np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1))).sum())"
    )
    assert python(code, HERE).stdout == "36.0\n"


def test_another_backend_is_refused():
    result = python(
        "import fastconv.adapters.keras", environment={"KERAS_BACKEND": "torch"}, check=False
    )
    assert "RuntimeError: Keras runs on 'torch', and fastconv is a backend for 'numpy'" in (
        result.stderr
    )


def test_a_missing_keras_names_the_extra():
    code = "import sys; sys.modules['keras'] = None; import fastconv.adapters.keras"
    result = python(code, check=False)
    assert 'ImportError: keras is not installed: pip install "fastconv[keras]"' in result.stderr


def fake_keras(folder, ops):
    """A Keras with nothing but what is replaced, at the place where `ops` says it lies."""
    jax = "jax.ops.math" if ops else "jax.math"
    home = "keras/src/backend/numpy/ops" if ops else "keras/src/backend/numpy"
    files = {
        f"{home}/nn.py": "import jax\nfrom jax import lax\n"
        + "".join(f"def {name}(*args): return lax.any\n" for name in adapter.FUNCTIONS),
        f"{home}/math.py": f"from keras.src.backend.{jax} import fft, fft2\n",
        "keras/__init__.py": "from types import SimpleNamespace as Names\n"
        f"from {home.replace('/', '.')} import math, nn\n"
        "backend = Names(backend=lambda: 'numpy')\n"
        "config = Names(image_data_format=lambda: 'channels_last')\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("ops", [False, True])
def test_both_places_where_keras_keeps_its_functions(tmp_path, ops):
    fake_keras(tmp_path, ops)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        + BLOCK
        + (
            "import keras, fastconv.adapters.keras as a, numpy as np\n"
            "x, w = np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 1))\n"
            "print(keras.nn.__name__, keras.nn.conv(x, w).sum())\n"
            "a.uninstall(); print(keras.nn.conv.__module__, keras.math.fft.__name__)\n"
        )
    )
    module = f"keras.src.backend.numpy.{'ops.' if ops else ''}nn"
    lines = python(code, HERE, tmp_path).stdout.splitlines()
    assert lines == [f"{module} 36.0", f"{module} missing"]


def test_a_keras_that_has_moved_its_functions_is_an_import_error(tmp_path):
    fake_keras(tmp_path, True)
    (tmp_path / "keras/src/backend/numpy/ops").rename(tmp_path / "keras/src/backend/numpy/new")
    init = tmp_path / "keras/__init__.py"
    init.write_text(init.read_text().replace("numpy.ops", "numpy.new"))
    code = "import sys; sys.path.insert(0, sys.argv[2])\n" + BLOCK
    result = python(code, HERE, tmp_path, check=False)
    assert "ImportError: this version of Keras has none of keras.src.backend.numpy.nn" in (
        result.stderr
    )
