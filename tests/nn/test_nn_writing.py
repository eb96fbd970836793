"""`fastconv.nn.files.replacing`: whoever reads, kills or writes at once, files are whole."""

from __future__ import annotations

import ast
import gc
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import nn
from fastconv.nn import files
from fastconv.nn.files import replacing
from fastconv.nn.npz import write_npz

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals, modes and links are POSIX")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# Several writers ------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
import numpy as np
from fastconv.nn.npz import NpzReader, write_npz
path, number, save = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
previous = path.with_name("previous.npz") if save == "checkpoint" else None
for i in range(150):
    # two arrays that must be of one writer and one round: a mixture would show
    whole = np.full(3000 + 500 * number, 1000 * number + i)
    write_npz(path, {"a": whole, "b": whole}, previous=previous)
    for name in (path, previous):
        if name is not None and (name == path or i):
            with NpzReader(name, "the file") as reader:
                a, b = reader.read("a"), reader.read("b")
            assert a.size == 3000 + 500 * (a[0] // 1000) and (a == a[0]).all(), a
            assert np.array_equal(a, b)
"""


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_processes_that_write_and_read_one_path(tmp_path, kind):
    path = tmp_path / "a.npz"
    words = [[sys.executable, "-c", WRITER, str(path), str(number), kind] for number in range(3)]
    started = [subprocess.Popen(word, stderr=subprocess.PIPE, text=True) for word in words]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert names(tmp_path) == ["a.npz"] + ["previous.npz"] * (kind == "checkpoint")


def test_threads_that_save_and_load_one_model(tmp_path):
    path, faults = tmp_path / "model.npz", []
    models = [nn.Sequential(nn.Dense(40, 30, rng=i), nn.Dense(30, 5, rng=i)) for i in range(4)]
    models[0].save(path)
    known = {m.parameters()[0].value.tobytes(): m.parameters()[2].value.tobytes() for m in models}

    def work(model):
        try:
            for _ in range(40):
                model.save(path)
                found = [p.value.tobytes() for p in nn.Sequential.load(path).parameters()]
                assert known[found[0]] == found[2]
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert names(tmp_path) == ["model.npz"]


def test_threads_that_load_at_once_with_a_hook_of_the_collector(tmp_path):
    """Python 3.11's parser, which reads the headers, is not for several threads at once."""
    path, faults = tmp_path / "model.npz", []
    model = nn.Sequential(nn.Dense(40, 30, rng=1), nn.Dense(30, 5, rng=1))
    model.save(path)

    def hook(phase, info):  # Python code, in which the interpreter may turn to another thread
        sum(range(50))

    def work():
        try:
            for _ in range(40):
                nn.Sequential.load(path)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20)
    gc.callbacks.append(hook)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(hook)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert not faults


# What is on the disk --------------------------------------------------------------------------


def test_the_bytes_are_on_the_disk_before_they_get_the_name(tmp_path, monkeypatch):
    """Every file that is renamed has been flushed whole; then the folder is."""
    synced, log = {}, []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(handle):
        found = os.fstat(handle)
        log.append("folder" if stat.S_ISDIR(found.st_mode) else "file")
        synced[found.st_ino] = found.st_size
        fsync(handle)

    def recording_replace(old, new):
        found = os.stat(old)
        log.append("rename")
        assert synced.get(found.st_ino) == found.st_size > 1000
        replace(old, new)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    with replacing(tmp_path / "text") as file:
        file.write(b"x" * 5000)
        assert not (tmp_path / "text").exists()
    end = ["folder"] * (os.name != "nt")
    assert log == ["file", "rename", *end]
    log.clear()
    for number in range(2):
        arrays = {"a": np.full(999, number)}
        write_npz(tmp_path / "a.npz", arrays, previous=tmp_path / "b.npz")
    assert log == ["file", "rename", *end, "file", "rename", "rename", *end]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(28, "No space left")])
def test_nothing_changes_when_the_writing_fails(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")

    def write_half():
        with replacing(path, tmp_path / "previous") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error) if isinstance(error, OSError) else error) as caught:
        write_half()
    assert names(tmp_path) == ["a.txt"]
    assert path.read_bytes() == b"before"
    if isinstance(error, OSError):
        assert caught.value.filename == str(path)


@POSIX
def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    """Whatever path is written next in that folder."""
    code = (
        "import sys\nfrom fastconv.nn.files import replacing\n"
        "with replacing(sys.argv[1]) as file:\n"
        "    file.write(b'half')\n    file.flush()\n    print('there', flush=True)\n"
        "    sys.stdin.readline()\n"
    )

    def started(name):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout.readline() == "there\n"
        return process

    killed, living = started("a"), started("b")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(names(tmp_path)) == 2
    foreign = [".fastconv-cli.conf", "a.tmp", "fastconv.tmp"]  # files of the user's
    for name in foreign:
        (tmp_path / name).touch()
    with replacing(tmp_path / "c") as file:
        file.write(b"whole")
    assert len(names(tmp_path)) == 2 + len(foreign)  # the killed one's is gone
    living.communicate("go on\n")
    assert living.returncode == 0
    assert names(tmp_path) == sorted(["b", "c", *foreign])
    assert (tmp_path / "b").read_bytes() == b"half"


@POSIX
def test_without_locks_only_old_leftovers_go(tmp_path, monkeypatch):
    def no_locks(handle, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    young, old = (tmp_path / f"{files.PREFIX}{n}{files.SUFFIX}" for n in range(2))
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    with replacing(tmp_path / "a") as file:
        file.write(b"whole")
    assert names(tmp_path) == sorted([young.name, "a"])


@POSIX
def test_a_writer_whose_file_was_taken_for_a_leftover_takes_another(tmp_path, monkeypatch):
    """Another writer may look at the file between its making and its lock."""
    flock, removed = files.fcntl.flock, []

    def late(handle, how):
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        flock(handle, how)

    monkeypatch.setattr(files.fcntl, "flock", late)
    with replacing(tmp_path / "a") as file:
        file.write(b"whole")
    assert len(removed) == 1
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


@POSIX
@pytest.mark.parametrize("fault", [OSError(95, "no hard links"), FileNotFoundError(2, "gone")])
def test_the_previous_file_without_hard_links_or_with_a_neighbour(tmp_path, monkeypatch, fault):
    link, faults = os.link, [fault] if isinstance(fault, FileNotFoundError) else [fault] * 9

    def failing(*args):
        if faults:
            raise faults.pop()
        link(*args)

    monkeypatch.setattr(os, "link", failing)
    for text in (b"one", b"two", b"three"):
        with replacing(tmp_path / "a", tmp_path / "b") as file:
            file.write(text)
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == b"three"
    assert (tmp_path / "b").read_bytes() == b"two"


@POSIX
def test_previous_and_present_may_be_one_file(tmp_path):
    """As a writer killed between the two renames leaves them."""
    (tmp_path / "a").write_bytes(b"one")
    os.link(tmp_path / "a", tmp_path / "b")
    with replacing(tmp_path / "a", tmp_path / "b") as file:
        file.write(b"two")
    assert names(tmp_path) == ["a", "b"]
    assert [(tmp_path / n).read_bytes() for n in "ab"] == [b"two", b"one"]


# As a plain open() ----------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_open(tmp_path, umask):
    before = os.umask(umask)
    try:
        with open(tmp_path / "plain", "wb"), replacing(tmp_path / "ours"):
            pass
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("plain", "ours")]
    assert modes[0] == modes[1] == 0o666 & ~umask
    (tmp_path / "ours").chmod(0o640)
    with replacing(tmp_path / "ours"):
        pass
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == 0o640


@POSIX
@pytest.mark.skipif(os.name != "nt" and os.geteuid() == 0, reason="root may write everywhere")
def test_what_is_write_protected_stays(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"mine")
    path.chmod(0o444)
    with pytest.raises(PermissionError) as caught, replacing(path):
        pass
    assert caught.value.filename == str(path)
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError) as caught, replacing(tmp_path / "new"):
        pass
    assert caught.value.filename == str(tmp_path / "new")
    tmp_path.chmod(0o755)
    assert path.read_bytes() == b"mine"


@POSIX
def test_links_are_followed(tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    (tmp_path / "link").symlink_to("middle")
    (tmp_path / "middle").symlink_to(far / "file")  # which does not exist yet
    for text in (b"one", b"two"):
        with replacing(tmp_path / "link", files.followed(tmp_path / "link").with_name("old")) as f:
            f.write(text)
        assert (far / "file").read_bytes() == text
    assert names(tmp_path) == ["far", "link", "middle"]
    assert (tmp_path / "link").is_symlink()
    assert (far / "old").read_bytes() == b"one"


@POSIX
def test_a_checkpoint_behind_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "run.npz"
    link.symlink_to(tmp_path / "far" / "real.npz")
    for epoch in range(2):
        nn.save_checkpoint(link, nn.Checkpoint(epoch, {}, [], {}))
    assert names(tmp_path / "far") == ["real.npz", "real.previous.npz"]
    assert nn.load_checkpoint(link).epoch == 1
    (tmp_path / "far" / "real.npz").unlink()
    assert nn.load_checkpoint(link).epoch == 0


@POSIX
def test_devices_and_pipes_are_written_to_and_stay(tmp_path):
    with replacing("/dev/null") as file:
        file.write(b"away")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with replacing(tmp_path / "pipe") as file:
        file.write(b"through")
    reader.join()
    assert found == [b"through"]
    assert names(tmp_path) == ["pipe"]


def test_paths_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="is a folder"), replacing(tmp_path):
        pass
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "none" / "a"):
        pass
    assert caught.value.filename == str(tmp_path / "none" / "a")
    with replacing(tmp_path / ("n" * 255)) as file:  # as long as a name can be
        file.write(b"whole")
    assert names(tmp_path) == ["n" * 255]


# Everything that writes -----------------------------------------------------------------------

WRITING = {"write_text", "write_bytes", "savez", "savez_compressed", "tofile", "savetxt", "imsave"}


def writers(text):
    """Lines of a program that write files past `replacing`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        first = ast.unparse(node.args[0]) if node.args else ""
        modes = [a.value for a in [*node.args, *(k.value for k in node.keywords)]
                 if isinstance(a, ast.Constant) and isinstance(a.value, str)]  # fmt: skip
        opens = last in ("open", "fdopen") and any(set(m) & set("wax+") for m in modes)
        opens &= first != "os.devnull" and not name.startswith(("archive", "self._archive"))
        plain = last in WRITING or name in ("np.save", "numpy.save", "os.replace", "os.rename")
        figure = last == "savefig" and first not in ("file", "buffer")
        found += [(node.lineno, name)] if opens or plain or figure else []
    return found


def test_everything_writes_through_one_function():
    root = Path(fastconv.__file__).parent
    # Machine code has rules of its own: private files, known by their contents.
    own = {root / "nn" / "files.py", root / "compiler" / "files.py"}
    for path in root.rglob("*.py"):
        assert path in own or not writers(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "text",
    ["open(p, 'w')", "p.open('wb')", "p.write_text(t)", "np.save(p, x)", "figure.savefig(path)",
     "np.savez(p, x=x)", "os.replace(a, b)"],
)  # fmt: skip
def test_the_search_for_writers_finds_them(text):
    assert writers(text)
