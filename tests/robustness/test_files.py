"""Files from others: they load, or a ValueError names them; memory is bounded; no pickle."""

from __future__ import annotations

import ast
import gzip
import io
import pickle
import random
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastconv
from fastconv import examples, nn, reference
from fastconv.cli import main
from fastconv.examples.idx import TRAIN
from fastconv.nn import npz

MIB = 2**20


def small_model():
    layers = nn.Conv(1, 2, 3, rng=0), nn.ReLU(), nn.Flatten(), nn.Dense(8, 2, rng=1)
    return nn.Sequential(*layers, ops=reference)


def model_file(folder):
    path = folder / "model.npz"
    small_model().save(path)
    return path, nn.Sequential.load


def checkpoint_file(folder):
    path = folder / "run.npz"
    model = small_model()
    x, y = np.random.default_rng(0).random((6, 4, 4, 1)).astype("f4"), np.arange(6) % 2
    optimizer = nn.Adam(model.parameters())
    nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, epochs=1, checkpoint=path)
    return path, nn.load_checkpoint


def data():
    rng = np.random.default_rng(0)
    return {"x": rng.integers(0, 256, (20, 5, 5), np.uint8), "y": np.arange(20) % 2}


def data_file(folder):
    path = folder / "data.npz"
    np.savez(path, **data())
    return path, examples.load_npz


def compressed_file(folder):
    path = folder / "data.npz"
    np.savez_compressed(path, **data())
    return path, examples.load_npz


def write_idx(folder, opener=open, suffix=""):
    arrays = data()
    for name, array in zip(TRAIN, (arrays["x"], arrays["y"].astype(np.uint8)), strict=True):
        header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
        with opener(folder / (name + suffix), "wb") as file:
            file.write(header + array.tobytes())
    return folder / (TRAIN[0] + suffix)


def idx_file(folder):
    return write_idx(folder), lambda path: examples.load_idx(path.parent)


def gzip_file(folder):
    path = write_idx(folder, gzip.open, ".gz")
    return path, lambda path: examples.load_idx(path.parent)


def short_idx_file(folder):
    path, load = idx_file(folder)
    path = path.rename(folder / "train-images-idx3-short")
    x = data()["x"].astype(">i2")
    path.write_bytes(struct.pack(">4I", 0xB03, *x.shape) + x.tobytes())
    return path, load


def cifar_file(folder):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 10, (20, 3073), np.uint8)
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    path = folder / "data_batch_1.bin"
    path.write_bytes(records.tobytes())
    return path, lambda path: examples.load_cifar(path.parent)


def names_file(folder):
    cifar_file(folder)
    return folder / "batches.meta.txt", lambda path: examples.load_cifar(path.parent)


def image_file(folder, suffix):
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        for i in range(5):
            image = np.random.default_rng(i).integers(0, 256, (9, 8, 3), np.uint8)
            Image.fromarray(image).save(folder / label / f"{i}{suffix}")
    return folder / "cat" / f"3{suffix}", lambda path: examples.load_folder(path.parent.parent)


def png_file(folder):
    return image_file(folder, ".png")


def jpeg_file(folder):
    return image_file(folder, ".jpg")


FORMATS = [model_file, checkpoint_file, data_file, compressed_file, idx_file, gzip_file,
           short_idx_file, cifar_file, names_file, png_file, jpeg_file]  # fmt: skip
each_format = pytest.mark.parametrize("make", FORMATS, ids=lambda f: f.__name__)


def damaged(whole, draw):
    """Some bytes changed, cut, repeated, moved or set to a number that hurts."""
    found = bytearray(whole)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at = draw.randrange(max(len(found), 1))
        kind = draw.randrange(7)
        if kind == 0:
            found[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            found[at : at + 1] = bytes([found[at] ^ 1 << draw.randrange(8)]) if found else b""
        elif kind == 2:
            del found[at:]
        elif kind == 3:
            del found[at : at + draw.randrange(1, 40)]
        elif kind == 4:
            other = draw.randrange(max(len(found), 1))
            found[at:at] = found[other : other + draw.randrange(1, 200)]
        elif kind == 5:
            number = draw.choice([0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1])
            found[at : at + 4] = struct.pack(draw.choice("<>") + "I", number)
        else:
            found[at : at + 8] = struct.pack("<Q", draw.choice([2**63, 2**63 - 1, 2**64 - 1]))
    return bytes(found)


@pytest.fixture
def no_pickle(monkeypatch, tmp_path_factory):
    checkpoint_file(tmp_path_factory.mktemp("kernels"))  # loads its kernels, which are pickles

    def refuse(*args, **kwargs):
        pytest.fail("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


def fuzz(make, folder, times, seed):
    """Load damaged versions of a file; returns how many loaded, and the most memory of one."""
    path, load = make(folder)
    whole = path.read_bytes()
    load(path)
    draw, loaded, most = random.Random(seed), 0, 0
    tracemalloc.start()
    try:
        for _ in range(times):
            path.write_bytes(damaged(whole, draw))
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                load(path)
                loaded += 1
            except (ValueError, TypeError) as error:
                named = str(path) in str(error) or str(path.parent) in str(error)
                if not named:
                    raise
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return loaded, most


@each_format
def test_damaged_files_load_or_are_named(make, tmp_path, no_pickle):
    loaded, most = fuzz(make, tmp_path, 150, 0)
    assert loaded < 150
    assert most < 16 * MIB


@pytest.mark.soak
@each_format
def test_many_damaged_files(make, tmp_path, no_pickle):
    loaded, most = fuzz(make, tmp_path, 20_000, 1)
    print(f"\n{make.__name__}: 20000 damaged, {loaded} loaded, at most {most / MIB:.1f} MiB")
    assert most < 16 * MIB


@each_format
def test_every_truncation(make, tmp_path, no_pickle):
    path, load = make(tmp_path)
    whole = path.read_bytes()
    # The last two checksums and the end mark of a PNG tell nothing of its pixels.
    needed = len(whole) - (20 if make is png_file else 0)
    for length in range(0, needed, max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at
            load(path)
        assert str(path.parent) in str(caught.value)


# ------------------------------------------------------------------------ made to do harm


def member(dtype, shape, body=b"", version=(1, 0)):
    """An .npy file with any header."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = {(1, 0): "write_array_header_1_0", (2, 0): "write_array_header_2_0"}[version]
    getattr(np.lib.format, write)(file, header)
    return file.getvalue() + body


def archive(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name + ".npy", content)
    return path


def peak_of(call):
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(2**40,), (2**31, 2**31), (2**62, 4), (10**30,), (-1, 4), (-4,)])
def test_a_header_that_claims_more_than_there_is(tmp_path, shape):
    y = member("<i8", (4,), bytes(32))
    path = archive(tmp_path / "a.npz", {"x": member("|u1", shape, b"1234"), "y": y})
    peak, message = peak_of(lambda: examples.load_npz(path))
    assert peak < MIB
    assert "a.npz" in message


@pytest.mark.parametrize("dtype", ["|O", "|V8", "<M8[s]", "<m8[ns]", [("a", "<f4")], "<c8", "<U4"])
def test_dtypes_that_are_no_images(tmp_path, dtype):
    size = np.dtype(dtype).itemsize
    y = member("<i8", (4,), bytes(32))
    x = member(dtype, (4, 2, 2), bytes(16 * size))
    path = archive(tmp_path / "a.npz", {"x": x, "y": y})
    _, message = peak_of(lambda: examples.load_npz(path))
    assert "a.npz" in message


def test_a_zip_bomb(tmp_path):
    """1.5 MB of file that would be 300 MiB of zeros, and as float32 images four times that."""
    path = tmp_path / "bomb.npz"
    size = 300 * MIB
    header = member("|u1", (size // 2**16, 256, 256))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w") as stream:
            stream.write(header)
            for _ in range(size // MIB):
                stream.write(bytes(MIB))
        file.writestr("y.npy", member("<i8", (4,), bytes(32)))
    assert path.stat().st_size < size / npz.BOMB_RATIO
    peak, message = peak_of(lambda: examples.load_npz(path))
    assert peak < 2 * MIB
    assert "bomb.npz" in message
    assert "would grow from" in message
    assert main(["train", "--data", str(path), "--out", str(tmp_path / "run")]) == 2


def test_images_that_compress_well_are_no_bomb(tmp_path):
    """Blank pages are as compressible as a bomb, but below 256 MiB they are read."""
    path = tmp_path / "blank.npz"
    np.savez_compressed(path, x=np.zeros((600, 224, 224), np.uint8), y=np.arange(600) % 2)
    assert path.stat().st_size * npz.BOMB_RATIO < 600 * 224 * 224
    assert len(examples.load_npz(path).x_train) == 480


def test_a_gzip_bomb(tmp_path):
    """The header says 20 images, the stream has 30 MiB."""
    path, load = gzip_file(tmp_path)
    arrays = data()
    header = struct.pack(">4I", 0x803, *arrays["x"].shape)
    compress = zlib.compressobj(wbits=31)
    content = compress.compress(header + arrays["x"].tobytes())
    content += b"".join(compress.compress(bytes(MIB)) for _ in range(30)) + compress.flush()
    path.write_bytes(content)
    peak, message = peak_of(lambda: load(path))
    assert peak < 2 * MIB
    assert "more bytes than its header says" in message


def test_members_that_lie_in_one_another(tmp_path):
    """Each of many members would be nearly the whole file: together far more than it."""
    path, load = checkpoint_file(tmp_path)
    path.write_bytes(overlapping(400))
    peak, message = peak_of(lambda: load(path))
    assert peak < 4 * MIB
    assert "overlap" in message


def overlapping(count):
    """A stored archive in which the data of each member hold all members after it."""
    headers, tail = [], b"\0" * 2**16
    body, directory = tail, b""
    for i in reversed(range(count)):
        name = b"a%d.npy" % i
        content = member("|u1", (len(body),), body)
        crc = zlib.crc32(content)
        fields = struct.pack("<5H3I2H", 20, 0, 0, 0, 33, crc, len(content), len(content),
                             len(name), 0)  # fmt: skip
        body = b"PK\3\4" + fields + name + content
        headers.append((fields, name, len(body)))
    for fields, name, length in headers:
        directory += b"PK\1\2" + struct.pack("<H", 20) + fields
        directory += struct.pack("<3H2I", 0, 0, 0, 0, len(body) - length) + name
    end = struct.pack("<4H2IH", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


@pytest.mark.parametrize("make", [model_file, checkpoint_file, data_file], ids=lambda f: f.__name__)
def test_a_pickle_in_place_of_the_file(make, tmp_path, no_pickle):
    path, load = make(tmp_path)
    for content in (pickle.dumps({"x": 1}), b"\x80\x04.", pickle.dumps(np.ones(3))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            load(path)


@pytest.mark.parametrize(
    "content",
    [
        member("<f8", (2**40,)),
        member("<f8", (10**30,)),
        member("<f8", (-8, -8), bytes(512)),
        member("<f8", (8, 8), bytes(511)),
        member("|O", (8, 8), pickle.dumps(1)),
        member("<f8", (2**28,)) + bytes(2**12),
        b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16,
        b"\x93NUMPY\x09\x09",
        b"PK\x03\x04 and no more",
        pickle.dumps(1),
        b"",
    ],
    ids=range(11),
)
def test_explain_refuses_wrong_images_in_one_line(content, tmp_path, capsys, no_pickle):
    path = tmp_path / "image.npy"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert main(["explain", "--image", str(path)]) == 2
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    err = capsys.readouterr().err
    assert "image.npy" in err
    assert err.count("\n") == 1


def test_no_module_reads_pickles():
    """No import of pickle and its kin, no allow_pickle but False, no eval."""
    root = Path(fastconv.__file__).parent
    names = ("nn", "examples", "explain", "cli", "testing", "functional", "problems")
    files = [p for name in names for p in (root / name).rglob("*.py")]
    assert len(files) > 40
    for path in files:
        assert not suspicious(path.read_text(encoding="utf-8")), path


FORBIDDEN = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}


def suspicious(text):
    """Names in a program that unpickle or evaluate."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in FORBIDDEN else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            bad = name in ("eval", "exec", "np.fromfile")
            allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            bad |= name in ("np.load", "numpy.load") and not allowed
            bad |= any(not isinstance(v, ast.Constant) or v.value for v in allowed)
            found += [name] if bad else []
    return found


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from joblib import load", "np.load(p)", "eval('1')",
     "np.load(p, allow_pickle=a)", "np.lib.format.read_array(f, allow_pickle=True)"],
)  # fmt: skip
def test_the_search_for_pickles_finds_them(text):
    assert suspicious(text)
