"""Outputs of a model into a zarr array: bits, chunks, runs that were stopped, other writers."""

import json
import multiprocessing
import os
import threading

import numpy as np
import pytest
from filelock import FileLock

from fastconv import nn

zarr = pytest.importorskip("zarr")

from fastconv.adapters import zarr as stored  # noqa: E402


def images(shape=(7, 40, 33, 2), dtype="f4"):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, 256, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def kept(folder, x, chunks):
    """`x` as an array of zarr."""
    y = zarr.create_array(str(folder), shape=x.shape, dtype=x.dtype, chunks=chunks)
    y[:] = x
    return y


def of_images():
    """Five layers that work on neighbourhoods."""
    return nn.Sequential(
        nn.Conv(2, 4, 3, padding="same", activation="relu", rng=0),
        nn.MaxPool(2),
        nn.Conv(4, 4, 5, padding="same", padding_mode="reflect", rng=1),
        nn.Upsample(2),
        nn.Conv(4, 3, 3, stride=2, padding=1, rng=2),
    )


def of_classes():
    return nn.Sequential(
        nn.Conv(2, 4, 3, activation="relu", rng=0), nn.GlobalAvgPool(), nn.Dense(4, 3, rng=1)
    )


@pytest.fixture
def small(monkeypatch):
    """Parts and batches of a few kilobytes."""
    monkeypatch.setattr(stored, "LARGEST", 2**12)


@pytest.mark.parametrize("chunks", [(1, 16, 16, 2), (3, 40, 33, 2), (7, 7, 5, 1), (2, 40, 8, 2)])
@pytest.mark.parametrize("make", [of_images, of_classes])
def test_bits_are_those_of_the_images_in_memory(make, chunks, tmp_path, small):
    x, model = images(), make()
    seen = []
    y = stored.predict(model, kept(tmp_path / "x", x, chunks), tmp_path / "y", progress=seen.append)
    np.testing.assert_array_equal(y[:], model.predict(x))
    assert y.read_only
    assert len(seen) == seen[-1].of + 1 > 2
    assert seen[-1].chunks == seen[-1].of == y.nchunks
    assert seen[0].chunks == seen[-1].found == seen[-1].spoilt == 0


def test_images_in_parts_and_images_whole(tmp_path, small):
    x = kept(tmp_path / "x", images(), (1, 8, 8, 2))
    assert stored.predict(of_images(), x, tmp_path / "a").chunks == (1, 4, 7, 3)
    assert stored.predict(of_classes(), x, tmp_path / "b").chunks == (1, 3)


@pytest.mark.parametrize(
    ("shape", "rank"), [((3, 50, 2), 1), ((2, 20, 16), 2), ((2, 9, 8, 10, 2), 3)]
)
def test_images_of_any_rank_and_of_one_channel(shape, rank, tmp_path, small):
    x = images(shape)
    if rank == 1:
        x = x[:, :, None]  # (m, W, 1, C) would be two axes
        shape = (3, 50, 1, 2)
    channels = 1 if len(shape) == 3 else 2
    window = (3,) * rank if rank != 1 else (3, 1)
    model = nn.Sequential(nn.Conv(channels, 5, window, padding="same", rng=0))
    y = stored.predict(model, x, tmp_path / "y")
    np.testing.assert_array_equal(y[:], model.predict(x if len(shape) > 3 else x[..., None]))


def test_bytes_are_scaled_and_a_head_is_applied(tmp_path, small):
    x, model = images(dtype="u1"), of_images()
    y = stored.predict(model, x, tmp_path / "y", scale=1 / 255, head=brightest)
    expected = brightest(model.predict(x, scale=1 / 255))
    np.testing.assert_array_equal(y[:], expected)
    assert y.dtype == np.int64
    assert y.shape == (7, 20, 16, 1)


def brightest(y):
    return y.argmax(-1, keepdims=True)


def test_a_map_of_memory_and_no_images(tmp_path):
    np.save(tmp_path / "x.npy", images())
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    y = stored.predict(of_classes(), x, tmp_path / "y", attributes={"made": "here"})
    np.testing.assert_array_equal(y[:], of_classes().predict(np.asarray(x)))
    assert y.attrs["made"] == "here"
    assert stored.predict(of_classes(), images()[:0], tmp_path / "none").shape == (0, 3)


class StoppedError(Exception):
    pass


def stop_after(chunks):
    def progress(now):
        if now.chunks == chunks:
            raise StoppedError

    return progress


def spoil(path, how):
    data = bytearray(path.read_bytes())
    if how == "bit":
        data[len(data) // 2] ^= 1
    path.write_bytes(data if how == "bit" else data[: {"cut": -3, "nothing": 0, "two": 2}[how]])


@pytest.mark.parametrize("how", ["bit", "cut", "nothing", "two"])
def test_a_stopped_run_goes_on_and_computes_what_is_not_whole(how, tmp_path, small, monkeypatch):
    x, model, out = images(), of_images(), tmp_path / "y"
    with pytest.raises(StoppedError):
        stored.predict(model, x, out, progress=stop_after(5))
    there = sorted(p for p in (out / "c").rglob("*") if p.is_file())
    assert len(there) == 5
    before = [p.stat().st_mtime_ns for p in there]
    spoil(there[2], how)
    seen = []
    monkeypatch.setattr(stored, "LARGEST", 2**20)  # the chunks are those that were begun
    y = stored.predict(model, x, out, progress=seen.append)
    np.testing.assert_array_equal(y[:], model.predict(x))
    assert seen[0] == (4, y.nchunks, 4, 1)
    assert [p.stat().st_mtime_ns for p in there[:2] + there[3:]] == before[:2] + before[3:]
    assert stored.predict(model, x, out, progress=seen.append).shape == y.shape
    assert seen[-1] == (y.nchunks, y.nchunks, y.nchunks, 0)


@pytest.mark.parametrize("name", ["model", "images", "scale", "head", "algorithm"])
def test_results_of_something_else_are_not_mixed(name, tmp_path):
    x, out = images(dtype="u1"), tmp_path / "y"
    first = {"model": of_images(), "x": x, "scale": 1 / 255, "head": None}
    stored.predict(out=out, **first)
    other = of_images()
    other.layers[0].b = other.layers[0].b.value + 1
    changed = x.copy()
    changed[-1, 3] += 1
    change = {
        "model": {"model": other},
        "images": {"x": changed},
        "scale": {"scale": 1.0},
        "head": {"head": brightest},
        "algorithm": {},
    }
    kind = __import__("fastconv").algorithm("fast" if name == "algorithm" else "exact")
    with kind, pytest.raises(ValueError, match=f"out: .*another {name.removesuffix('s')}; "):
        stored.predict(out=out, **{**first, **change[name]})
    np.testing.assert_array_equal(
        zarr.open_array(str(out), mode="r")[:], of_images().predict(x, scale=1 / 255)
    )


def test_what_is_no_result_stays_as_it_is(tmp_path):
    x = kept(tmp_path / "x", images(), (1, 40, 33, 2))
    (tmp_path / "text").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text").write_text("mine")
    kept(tmp_path / "array", images(), (1, 40, 33, 2))
    for name, says in [
        ("text", "no folder"),
        ("folder", "something else"),
        ("array", "has not made"),
        ("x", "where the images are"),
        ("x/c", "where the images are"),
        (".", "where the images are"),
    ]:
        with pytest.raises(ValueError, match=f"out: .*{says}"):
            stored.predict(of_images(), x, tmp_path / name)
    assert not list(tmp_path.rglob(".*"))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "zarr.json").write_text('{"zarr_for')
    with pytest.raises(ValueError, match=r"out: .*something else"):
        stored.predict(of_images(), x, tmp_path / "torn")


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": 3}, TypeError, "model: "),
        ({"x": [1]}, TypeError, "x: "),
        ({"x": np.ones((3, 3))}, ValueError, "x: expected"),
        ({"x": images((1, 9, 9, 5))}, ValueError, "x: expected"),
        ({"x": images(dtype="u1")}, TypeError, "x: .*scale="),
        ({"scale": -1}, ValueError, "scale: "),
        ({"out": 3}, TypeError, "out: "),
        ({"head": lambda y: y.sum(-1)}, ValueError, "head: "),
    ],
)
def test_bad_arguments_are_named_and_leave_nothing(changes, error, says, tmp_path):
    arguments = {"model": of_images(), "x": images(), "out": tmp_path / "y", **changes}
    with pytest.raises(error, match=says):
        stored.predict(**arguments)
    assert not (tmp_path / "y").exists()


def _hold(folder, held, done):
    with FileLock(folder / stored.LOCK):
        held.set()
        done.wait(60)


def test_a_second_writer_is_told_and_the_first_goes_on(tmp_path):
    out = tmp_path / "y"
    out.mkdir()
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(out, held, done))
    other.start()
    assert held.wait(60)
    try:
        with pytest.raises(BlockingIOError, match="another process is writing"):
            stored.predict(of_images(), images(), out)
    finally:
        done.set()
        other.join()
    assert stored.predict(of_images(), images(), out).shape == (7, 20, 16, 3)


def test_two_threads_with_two_results(tmp_path, small):
    x, model, found = images(), of_images(), {}

    def run(name):
        found[name] = stored.predict(model, x, tmp_path / name)[:]

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "ab":
        np.testing.assert_array_equal(found[name], model.predict(x))


def test_what_a_result_says_of_itself(tmp_path):
    stored.predict(of_classes(), images(), tmp_path / "y")
    written = json.loads((tmp_path / "y" / "zarr.json").read_text())
    assert set(written["attributes"]["fastconv"]) == {
        "model", "images", "scale", "algorithm", "head",
    }  # fmt: skip
    assert written["fill_value"] == "NaN"
    assert sorted(os.listdir(tmp_path / "y")) == [stored.LOCK, "c", "zarr.json"]
