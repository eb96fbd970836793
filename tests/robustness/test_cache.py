"""The files in which kernels are kept: faults are injected, and the next process is right.

Each test has a cache of its own with one kernel in it, `col2im_rows`, which compiles in a moment.
"""

import compileall
import ctypes
import itertools
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec

import pytest

from fastconv import cache
from fastconv.compiler import files, folder, sources

QUICK = "import work; print(work.quick())"
SOAK = pytest.mark.soak
ROOTS = ("linked root", "writable root")
posix = pytest.mark.skipif(os.name != "posix", reason="permissions and owners are POSIX")


def kernels(folder):
    return sorted(folder.glob("fastconv-*/*.kernel"))


def compiled(err):
    return err.count("compiling its kernels")


# Tells on stderr whether anything was compiled.
TALKING = "import fastconv.compiler.once as once; once.PATIENCE = -1e9; " + QUICK


@pytest.fixture(scope="session")
def one_kernel(python, tmp_path_factory):
    """A folder with one kernel, for copying."""
    folder = tmp_path_factory.mktemp("one")
    assert python(QUICK, FASTCONV_CACHE_DIR=folder) == ("True", "")
    assert len(kernels(folder)) == 1
    return folder


@pytest.fixture
def warm(one_kernel, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(one_kernel, folder)
    return folder


def answers(python, folder, warnings=0, compiles=None, code=TALKING, **environment):
    """The answer is right, and `warnings` warnings were given; returns what was said."""
    out, err = python(code, FASTCONV_CACHE_DIR=folder, **environment)
    assert out.splitlines()[-1] == "True", out
    assert err.count("RuntimeWarning") == warnings, err
    if compiles is not None:
        assert compiled(err) == compiles, err
    return err


def test_a_kernel_is_compiled_once(python, tmp_path):
    folder = tmp_path / "new" / "folder"
    answers(python, folder, compiles=1)
    answers(python, folder, compiles=0)
    (file,) = kernels(folder)
    assert file.parent.name.startswith("fastconv-")
    if os.name == "posix":
        modes = [p.stat().st_mode & 0o777 for p in (folder, file.parent, file)]
        assert modes == [0o700, 0o700, 0o600]


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "header only": lambda data: data[: files.HEADER],
    "zeroed": lambda data: bytes(len(data)),
    "half zeroed": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "a bit flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "another format": lambda data: data.replace(b"kernel 1", b"kernel 2", 1),
    "longer": lambda data: data + b"\0",
}


@pytest.mark.parametrize("damage", ["a bit flipped", pytest.param("truncated", marks=SOAK)])
def test_a_damaged_file_is_deleted_and_made_anew(python, warm, damage):
    (file,) = kernels(warm)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert "is damaged" in answers(python, warm, warnings=1, compiles=1)
    answers(python, warm, compiles=0)


@pytest.mark.parametrize("damage", DAMAGE)
def test_no_damage_goes_unnoticed(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "_said", set())
    file = files.KernelFile("name", "key")
    file.write(b"machine code" * 100)
    assert files.load(file, bytes, lambda code: code == b"machine code" * 100)
    file.path.write_bytes(DAMAGE[damage](file.path.read_bytes()))
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert files.load(file, bytes, lambda code: True) is None
    assert not file.exists()
    assert files.load(file, bytes, lambda code: True) is None


def test_a_deleted_file_is_made_anew(python, warm):
    kernels(warm)[0].unlink()
    answers(python, warm, compiles=1)
    answers(python, warm, compiles=0)


SWAPPED = """
import numpy as np, fastconv as fc
for dtype in ("float32", "float64"):
    cols = np.ones((1, 3, 2), dtype)
    assert fc.col2im(cols, (1, 4, 1), 2).ravel().tolist() == [1, 2, 2, 1]
print(True)
"""


def test_swapped_files_are_found_out(python, warm):
    answers(python, warm, code=SWAPPED)
    one, other = kernels(warm)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    answers(python, warm, warnings=1, code=SWAPPED)  # one warning, whatever their number
    answers(python, warm, code=SWAPPED)


def test_a_file_that_is_sound_but_no_kernel(python, warm):
    """Its digest is right, what it holds is not."""
    code = """
import work
import fastconv.compiler.files as k
k.KernelFile.read = lambda self: b"not a pickle"
print(work.quick())
"""
    assert "cannot be loaded" in answers(python, warm, warnings=1, code=code)


# A kernel under the right name, key and digest, made from wrong sources.
WRONG_KERNEL = """
import fastconv.compiler.kernel as jit, fastconv.engine.loops.col2im as col2im
def col2im_rows(cols, dx, axes, start, stop):
    dx[:] = 0
col2im_rows.__module__ = col2im.__name__
col2im.col2im_rows = jit.kernel(works=lambda *_: True)(col2im_rows)
import work
print(not work.quick())
"""


def test_a_wrong_kernel_is_found_out_by_a_known_answer(python, tmp_path):
    answers(python, tmp_path, code=WRONG_KERNEL)
    assert len(kernels(tmp_path)) == 1
    assert "wrong answer" in answers(python, tmp_path, warnings=1, compiles=1)
    answers(python, tmp_path, compiles=0)


WRONG_ENGINE = """
import fastconv as fc, work
import fastconv.engine.entries as entries, fastconv.compiler.entry as entry
def nothing(name, python):
    if not name.startswith(NAME):
        return python
    def control(call, thread):
        pass
    def sweep(task):
        pass
    return sweep if name.startswith("sweep") else control
make = entry._compile
entry._compile = lambda name, python: make(name, lambda: nothing(name, python()))
entries.product_works = entries.sweep_works = entries.pool_works = lambda *_: True
x, w = work.operands(m=1)
y = fc.conv(x, w)
fc.conv_kernel_grad(x, y, w.shape)
fc.max_pool(x, 2)
"""
ENGINE = """
import numpy as np, fastconv as fc, work
x, w = (np.ones_like(a) for a in work.operands(m=1))
y = fc.conv(x, w)
dw = fc.conv_kernel_grad(x, y, w.shape)
z = fc.max_pool(x, 2)
print(bool((y == 9 * 16).all() and (dw == y.size / 16 * 9 * 16).all() and (z == 1).all()))
"""


@pytest.mark.parametrize(
    "name",
    [
        "sweep",
        "max",
        *(pytest.param(name, marks=SOAK) for name in ("convolve", "kernel_gradient")),
    ],
)
def test_a_wrong_kernel_of_the_engine_is_found_out(python, right, tmp_path, name):
    """The sweep, or a loop over it, replaced by one that does nothing."""
    assert right  # the kernels are on disk
    shutil.copytree(cache.path(), tmp_path / cache.path().name)
    tmp_path.chmod(0o700)
    answers(python, tmp_path, code=ENGINE)
    for file in kernels(tmp_path):
        if file.name.startswith(name):
            file.unlink()
    python(WRONG_ENGINE.replace("NAME", repr(name)), FASTCONV_CACHE_DIR=tmp_path)
    wrong = [file for file in kernels(tmp_path) if file.name.startswith(name)]
    before = [file.read_bytes() for file in wrong]
    assert wrong
    assert "wrong answer" in answers(python, tmp_path, warnings=1, code=ENGINE)
    assert before != [file.read_bytes() for file in wrong]
    answers(python, tmp_path, code=ENGINE)


def test_every_kernel_has_a_known_answer_that_it_gives():
    """And that a kernel that does nothing does not."""
    import numba

    from fastconv.engine import known_calls
    from fastconv.engine.loops import col2im

    for dtype in (numba.float32, numba.float64):
        arrays = (dtype[:, :, :, :, :, ::1], dtype[:, :, :, :, ::1], numba.int64[:, ::1])
        for name, count in (("col2im_rows", 2), ("col2im_rows_parallel", 1)):
            call = getattr(col2im, name)
            assert call._cache.name == f"col2im.{name}"
            ends = (numba.int64,) * count
            signature = (*arrays, *ends) if count == 2 else (numba.int64, *arrays, *ends)
            works = call._cache.works
            assert works in (known_calls.col2im_works, known_calls.col2im_parallel_works)
            assert works(call, signature), name
            assert not works(lambda *_: None, signature), name
            assert not works(call, signature[1:]), name


def test_the_engine_gives_its_known_plans():
    import numba
    import numpy as np

    from fastconv.engine import entries, known_kept, known_loops, known_plans, launch
    from fastconv.engine.tables import tiles

    silent = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(lambda call, thread: None)
    nothing = ctypes.cast(silent, ctypes.c_void_p).value
    assert known_kept.serve_works(entries.serve_address())
    assert not known_kept.serve_works(nothing)
    for dtype in ("float32", "float64"):
        for tile in tiles.all_tiles(np.dtype(dtype)):
            assert known_plans.sweep_works(entries.sweep_address(tile), tile), tile
        for name in entries.LOOPS:
            address = entries.loop_address(name, np.dtype(dtype))
            assert known_loops.loop_works(address, name, np.dtype(dtype)), name
            assert not known_loops.loop_works(nothing, name, np.dtype(dtype)), name
        most = tiles.cpu_lanes(np.dtype(dtype))
        for name, lanes in ((name, lanes) for name in entries.FINISHES for lanes in (1, most)):
            works = entries.FINISHES[name][1]
            address = entries.finish_address(name, lanes, np.dtype(dtype))
            assert works(address, lanes, np.dtype(dtype)), name
            assert not works(nothing, lanes, np.dtype(dtype)), name
    for dtype in map(np.dtype, ("float16", "float32", "float64")):
        most = tiles.cpu_lanes(dtype if dtype.itemsize > 2 else np.dtype("float32"))
        pools = [(name, lanes, 0) for name in entries.POOLS for lanes in (1, 2, most)]
        pools += [(name, most, 2) for name in entries.LINES]
        pools += [(name, most, 1) for name in ("max", "argmax", "mean")]
        for name, lanes, spacing in pools:
            if dtype == "float16" and (name in ("spread", "scatter") or not tiles.cpu_halves()):
                continue
            address = entries.pool_address(name, lanes, spacing, dtype)
            assert known_plans.pool_works(address, name, lanes, spacing, dtype), name
            assert not known_plans.pool_works(nothing, name, lanes, spacing, dtype), name
    for dtype, edge in itertools.product(map(np.dtype, ("float32", "float64")), (2, 4)):
        address = entries.minimal_address(edge, dtype)
        assert known_plans.minimal_works(address, edge, dtype, entries.sweep_address)
        assert not known_plans.minimal_works(nothing, edge, dtype, entries.sweep_address)
    for name in ("convolve", "kernel_gradient"):
        tile = tiles.dense_tile(8, 16, np.dtype("float32"))
        address = entries.control_address(name)
        assert known_plans.product_works(address, name, tile, entries.sweep_address)
        assert not known_plans.product_works(nothing, name, tile, entries.sweep_address)
    for run, arguments in ((launch.run, 3), (launch.run_serial, 2)):
        signature = (numba.int64,) * arguments
        assert run._cache.works(run, signature)
        assert not run._cache.works(lambda *_: None, signature)
        assert not run._cache.works(run, signature[1:])


def test_kernels_of_several_processes_are_loaded_into_one(python, tmp_path):
    """Loops that a decorator made of others have names of their own, also in machine code."""
    code = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np
from fastconv.engine.entries import loop_address
for name in NAMES:
    loop_address(name, np.dtype("float32"))
"""
    for names in (["sgd"], ["adam"], ["rmsprop"], ["sgd", "adam", "rmsprop"]):
        python(code.replace("NAMES", repr(names)), FASTCONV_CACHE_DIR=tmp_path)


def test_the_sources_are_all_those_that_machine_code_is_made_from():
    """What compiled modules import from the package, and they from each other, is digested."""
    import ast
    from pathlib import Path

    root = Path(cache.__file__).parent
    # how threads are counted, operands checked, sizes, where files lie: no machine code has them
    plain = ("threads.py", "operands.py", "_version.py", "geometry/")
    seen, left = set(), {"engine/entries.py", "engine/loops/col2im.py"}
    while left:
        name = left.pop()
        seen.add(name)
        for node in ast.walk(ast.parse((root / name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastconv"):
                base = "/".join(node.module.split(".")[1:])
                names = [f"{base}/{a.name}.py".lstrip("/") for a in node.names] + [f"{base}.py"]
                found = {n for n in names if (root / n).is_file() and not n.startswith(plain)}
                left |= found - seen
    assert {"engine/loops/conv.py", "engine/emit/product.py", "compiler/kernel.py"} < seen
    assert {name[:-3].replace("/", ".") for name in seen} <= set(sources.sources())


@pytest.mark.parametrize("form", ["zip", "bytecode"])
def test_sources_are_found_in_every_installation(python, tmp_path, form):
    """In a zip file, and where only bytecode is installed; with one module changed, elsewhere."""
    import compileall
    from pathlib import Path

    package = Path(cache.__file__).parent
    places = []
    for i in range(2):
        place = tmp_path / str(i)
        copy = place / "fastconv"
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if i:
            changed = copy / "engine" / "loops" / "sweep.py"
            changed.write_text(changed.read_text() + "CHANGED = 1\n")
        if form == "zip":
            places.append(shutil.make_archive(str(place), "zip", place))
        else:
            compileall.compile_dir(copy, legacy=True, quiet=1)
            for source in copy.rglob("*.py"):
                source.unlink()
            places.append(str(place))
    code = """
import sys
sys.path[:0] = [PLACE]
from fastconv.compiler import sources
assert sources.__file__.startswith(PLACE)
print(len(sources.sources()), sources.folder_name())
"""
    said = [python(code.replace("PLACE", repr(place)))[0].split() for place in places]
    assert said[0][0] == said[1][0] == str(len(sources.sources()))
    assert said[0][1] != said[1][1]


def test_changed_sources_never_get_old_code(python, warm):
    code = (
        """
import fastconv.compiler.sources as sources
old = sources._source
sources._source = lambda name, spec: old(name, spec) + b"# changed"
"""
        + TALKING
    )
    answers(python, warm, compiles=1, code=code)
    assert len(kernels(warm)) == 2
    assert len({file.parent for file in kernels(warm)}) == 2


def without_sources(folder, zipped):
    """A copy of the package as .pyc files alone; what to put on sys.path."""
    package = folder / "fastconv"
    shutil.copytree(os.path.dirname(cache.__file__), package,
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    assert compileall.compile_dir(package, quiet=1, legacy=True)
    for file in package.rglob("*.py"):
        file.unlink()
    return shutil.make_archive(folder / "all", "zip", folder) if zipped else folder


@pytest.mark.parametrize("zipped", [False, True])
def test_kernels_are_kept_where_the_package_has_no_sources(tmp_path, zipped):
    """By the bytecode, which has an order of its own in no process."""
    (tmp_path / "site").mkdir()
    site = without_sources(tmp_path / "site", zipped)
    code = (
        "import fastconv.compiler.once as once; once.PATIENCE = -1e9\n"
        "import numpy as np, fastconv as fc\n"
        "assert fc.__file__.endswith('.pyc')\n"
        "print(fc.col2im(np.ones((1, 2, 4)), (1, 5, 1), 4).sum())"
    )
    for number in range(2):
        environment = {"PYTHONPATH": str(site), "PYTHONHASHSEED": str(number),
                       "FASTCONV_CACHE_DIR": str(tmp_path / "kernels")}  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment,
                              cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
        assert done.stdout.strip() == "8.0", done.stderr
        assert compiled(done.stderr) == (not number), done.stderr
        assert "Warning" not in done.stderr
        assert len(kernels(tmp_path / "kernels")) == 1


def test_other_bytecode_is_another_key_and_another_place_is_not():
    one, other, moved = (
        compile(text, file, "exec")
        for text, file in (
            ("a = {1, 2} | f(3)", "x"),
            ("a = {1, 2} | f(4)", "x"),
            ("a = {1, 2} | f(3)", "y"),
        )
    )
    assert sources._code(one) == sources._code(moved) != sources._code(other)


def test_without_any_code_no_folder_is_promised_to_help(monkeypatch):
    class Loader:
        """Of a module that exists in memory alone."""

    spec = ModuleSpec("kernel", Loader(), origin="built in")
    monkeypatch.setattr(sources, "sources", lambda: {"compiler.kernel": spec})
    monkeypatch.setattr(folder, "folder_name", sources.folder_name.__wrapped__)
    monkeypatch.setattr(files, "_said", set())
    with pytest.warns(RuntimeWarning, match="neither source nor bytecode") as said:
        assert files.KernelFile("a", 1).read() is None
    assert "FASTCONV_CACHE_DIR" not in str(said[0].message)
    assert cache.describe().startswith("none: neither source")


@pytest.mark.parametrize("package", ["fastconv._version", "numba", "llvmlite", "numpy"])
def test_other_versions_have_folders_of_their_own(monkeypatch, package):
    name = sources.folder_name.__wrapped__
    mine = name()
    assert mine == name()
    monkeypatch.setattr(f"{package}.__version__", "0.0.1")
    assert name() != mine


@posix
@pytest.mark.parametrize(
    "delay",
    [
        pytest.param(delay / 100, marks=() if delay == 30 else SOAK)
        for delay in (*range(0, 61, 5), 100)
    ],
)
def test_killed_while_it_compiles_then_changed_sources(python, tmp_path, delay):
    """SIGKILL so many seconds after compiling has started."""
    code = f"""
import os, signal, threading
import fastconv.compiler.once as once, fastconv.compiler.entry as entry
lock = once.once_on_this_machine
def killing(file):
    threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return lock(file)
once.once_on_this_machine = entry.once_on_this_machine = killing
import work, time
work.quick()
time.sleep(2)
"""
    process = python.start(code, FASTCONV_CACHE_DIR=tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == -9
    changed = "import fastconv.compiler.sources as s; old = s._source; "
    changed += "s._source = lambda name, spec: old(name, spec) + b'#'; "
    answers(python, tmp_path, code=changed + QUICK)
    answers(python, tmp_path)  # the old sources: the lock died with its owner


@pytest.mark.parametrize("when", ["before the rename", "while writing"])
@posix
def test_killed_while_it_writes(python, tmp_path, when):
    code = """
import os, signal
import fastconv.compiler.files as k
WHERE = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
import work
work.quick()
""".replace("WHERE", "os.replace" if when == "before the rename" else "k.KernelFile._header")
    process = python.start(code, FASTCONV_CACHE_DIR=tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert not kernels(tmp_path)
    assert len(list(tmp_path.glob("fastconv-*/*.tmp"))) == 1
    answers(python, tmp_path, compiles=1)
    assert not list(tmp_path.glob("fastconv-*/*.tmp"))


RACE = """
import os, sys, time
import fastconv as fc, work
import fastconv.compiler.kernel
until = time.monotonic() + 60
while not os.path.exists(sys.argv[1]) and time.monotonic() < until:
    time.sleep(0.005)
print(work.quick())
"""


def race(python, folder, processes, code):
    """Start processes that wait for a file, then make it."""
    go = folder / "go"
    code = f"import sys; sys.argv = ['', {str(go)!r}]\n" + code
    started = [python.start(code, FASTCONV_CACHE_DIR=folder) for _ in range(processes)]
    time.sleep(2)
    go.touch()
    said = [python.finish(process, deadline=300) for process in started]
    assert not any("Warning" in err for _, err in said), said
    return [out for out, _ in said]


def test_sixteen_processes_on_a_cold_cache(python, tmp_path):
    assert race(python, tmp_path, 16, RACE) == ["True"] * 16
    answers(python, tmp_path, compiles=0)


@pytest.mark.soak
@pytest.mark.parametrize("repeat", range(5))
def test_sixteen_processes_again_and_again(python, tmp_path, repeat):
    assert race(python, tmp_path, 16, RACE) == ["True"] * 16


@pytest.mark.soak
def test_sixteen_processes_that_compile_everything(python, right, tmp_path):
    """All of them want all kernels, some in another order."""
    code = RACE.replace("work.quick()", "work.digest()")
    assert race(python, tmp_path, 16, code) == [right] * 16


@posix
@pytest.mark.parametrize("fault", ["EROFS", "ENOSPC", "EFBIG", "EACCES", "a file in the way"])
def test_where_nothing_can_be_written(python, tmp_path, fault):
    """A read-only file system, a full one, a limit on sizes, no permission, no folder."""
    faults = {
        "EROFS": """
import errno, os
real = os.open
def refuse(path, flags, *args, **more):
    if flags & os.O_CREAT:
        raise OSError(errno.EROFS, "Read-only file system", path)
    return real(path, flags, *args, **more)
os.open = refuse
""",
        "ENOSPC": """
import errno, builtins
real = open
class Full:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.file.close()
    def write(self, data):
        self.file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")
builtins.open = lambda f, mode="r", *a, **k: (
    Full(real(f, mode)) if mode == "wb" and isinstance(f, int) else real(f, mode, *a, **k))
""",
        "EFBIG": """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
""",
        "EACCES": """
import errno, pathlib
def refuse(self, *args, **more):
    raise PermissionError(errno.EACCES, "Permission denied", str(self))
pathlib.Path.mkdir = refuse
""",
        "a file in the way": "",
    }
    folder = tmp_path / "cache"
    if fault == "a file in the way":
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "cache"
    many = faults[fault] + SWAPPED  # two kernels, one warning
    err = answers(python, folder, warnings=1, code=many)
    assert "compiled anew in every process; FASTCONV_CACHE_DIR" in err
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("*.kernel"))


@posix
def test_a_read_only_cache_that_is_warm_is_used(python, warm):
    code = (
        """
import errno, os
real = os.open
def refuse(path, flags, *args, **more):
    if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
        raise OSError(errno.EROFS, "Read-only file system", path)
    return real(path, flags, *args, **more)
os.open = refuse
"""
        + TALKING
    )
    answers(python, warm, compiles=0, code=code)


@posix
@pytest.mark.parametrize(
    "fault", ["link", "writable", "foreign", *(pytest.param(f, marks=SOAK) for f in ROOTS)]
)
def test_a_folder_that_others_could_change_is_refused(python, warm, tmp_path, fault):
    """Nothing is read from it, nothing written to it."""
    (file,) = kernels(warm)
    code, folder, expected = TALKING, warm, "is writable by other users"
    if fault == "link":
        elsewhere = tmp_path / "elsewhere"
        file.parent.rename(elsewhere)
        file.parent.symlink_to(elsewhere)
        expected = "is a symbolic link"
    elif fault == "linked root":
        folder = tmp_path / "link"
        folder.symlink_to(warm)
        expected = "is a symbolic link"
    elif fault == "foreign":
        code = f"import os; real = os.geteuid(); os.geteuid = lambda: real + 1; {code}"
        expected = "belongs to another user"
    else:
        (warm if fault == "writable root" else file.parent).chmod(0o770)
    before = sorted(file.parent.iterdir())
    assert expected in answers(python, folder, warnings=1, compiles=1, code=code)
    assert sorted(file.parent.iterdir()) == before


@posix
@pytest.mark.parametrize("fault", ["link", "writable"])
def test_a_file_that_others_could_change_is_not_read(python, warm, tmp_path, fault):
    (file,) = kernels(warm)
    if fault == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.chmod(0o666)
    answers(python, warm, warnings=1, compiles=1)
    answers(python, warm, compiles=0)


def test_the_folder_is_deleted_while_a_process_runs(python, tmp_path):
    code = f"""
import shutil, work, numpy as np, fastconv as fc
assert work.quick()
shutil.rmtree({str(tmp_path / "cache")!r})
assert work.quick()
print(fc.col2im(np.ones((1, 3, 2)), (1, 4, 1), 2).ravel().tolist() == [1, 2, 2, 1])
"""
    answers(python, tmp_path / "cache", code=code)
    assert len(kernels(tmp_path / "cache")) == 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64 processors")
@pytest.mark.parametrize("code", [TALKING, pytest.param(ENGINE, marks=pytest.mark.soak)])
def test_a_cache_from_a_host_with_other_features(python, tmp_path, code):
    """The kernels of a wide processor, its cache on a narrow one, and back: none is mixed up."""
    times = 1 if code == TALKING else 2  # the known product may need a kernel that the call did not

    def kept(**host):
        for _ in range(times):
            answers(python, tmp_path, code=code, deadline=300, **host)
        return set(kernels(tmp_path))

    mine = kept()
    everyone = kept(NUMBA_CPU_NAME="generic")
    assert len(everyone) > len(mine)
    assert kept(NUMBA_CPU_NAME="generic") == kept() == everyone


@pytest.mark.parametrize(
    "setting",
    [
        "NUMBA_OPT=0",
        pytest.param("NUMBA_BOUNDSCHECK=1", marks=SOAK),
        pytest.param("NUMBA_DEBUGINFO=1", marks=SOAK),
    ],
)
def test_settings_that_change_code_have_files_of_their_own(python, warm, setting):
    name, _, value = setting.partition("=")
    answers(python, warm, compiles=1, **{name: value})
    answers(python, warm, compiles=0, **{name: value})
    answers(python, warm, compiles=0)


def test_numba_is_left_alone(python, tmp_path):
    """Its settings are the same before and after, and its own cache is the caller's."""
    code = f"""
import numba
from numba.core import config
before = {{n: repr(getattr(config, n)) for n in dir(config) if n.isupper()}}
import work
assert work.quick()
assert before == {{n: repr(getattr(config, n)) for n in dir(config) if n.isupper()}}
from numba.core import caching
assert config.CACHE_DIR == {str(tmp_path / "numba")!r}
print(True)
"""
    answers(python, tmp_path / "ours", code=code, NUMBA_CACHE_DIR=tmp_path / "numba")
    assert not (tmp_path / "numba").exists()


def test_path_and_clear(tmp_path, monkeypatch, warm):
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(warm))
    assert cache.path() == kernels(warm)[0].parent
    bystander, other = warm / "notes.txt", warm / "fastconv-0.0-old"
    bystander.write_text("the user's")
    other.mkdir(mode=0o700)
    (other / "a.kernel").write_text("old")
    (other / "keep.txt").write_text("the user's")
    assert cache.clear() == 2
    assert sorted(warm.iterdir()) == [other, bystander]
    assert [file.name for file in other.iterdir()] == ["keep.txt"]
    assert cache.clear() == 0


@posix
def test_where_kernels_are_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTCONV_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    library = "Library/Caches" if sys.platform == "darwin" else ".cache"
    assert cache.path().parent == tmp_path / library / "fastconv"
    if sys.platform != "darwin":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache.path().parent == tmp_path / "xdg" / "fastconv"


def test_warnings_as_errors_name_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import fastconv as fc, numpy as np\n"
         "a = np.ones(3)\ntry:\n    fc.relu_backward(a, a)\n"
         "except RuntimeWarning as error:\n    print(error)\nprint(fc.relu_backward(a, a).sum())"],
        env={**os.environ, "FASTCONV_CACHE_DIR": str(tmp_path / "file" / "x")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Not a directory" in done.stdout
    assert done.stdout.splitlines()[-1] == "3.0"
