"""Data loaders: the digits, and files that are good, wrong, cut short, or made to do harm."""

import gzip
import io
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from fastconv import examples, nn
from fastconv.examples import data as loaders

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 5, 4), np.uint8)
LABELS = (np.arange(50) % 5).astype(np.uint8)

TRAIN_X, TRAIN_Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_X, TEST_Y = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(array):
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / TRAIN_X).write_bytes(idx(IMAGES))
    (tmp_path / TRAIN_Y).write_bytes(idx(LABELS))
    (tmp_path / TEST_X).write_bytes(idx(IMAGES[:10]))
    (tmp_path / TEST_Y).write_bytes(idx(LABELS[:10]))
    return tmp_path


# The digits -----------------------------------------------------------------------------------


def test_digits():
    d = examples.load_digits()
    assert d.x_train.shape == (1438, 8, 8, 1)
    assert d.x_test.shape == (359, 8, 8, 1)
    assert d.classes == 10
    for x, y in ((d.x_train, d.y_train), (d.x_test, d.y_test)):
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert (x.min(), x.max()) == (0, 1)
    # A fifth of each class.
    both = np.bincount(d.y_train) + np.bincount(d.y_test)
    assert np.abs(np.bincount(d.y_test) - both / 5).max() <= 0.5
    # No image is in both parts: 1797 rows, as many as scikit-learn has, and the same ones.
    from sklearn.datasets import load_digits

    rows = np.concatenate([d.x_train, d.x_test]).reshape(-1, 64)
    theirs = load_digits().data.astype(np.float32) / 16
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], theirs[np.lexsort(theirs.T)])


def test_held_out_fifth_is_fixed():
    # Written down once: if these change, accuracies are no longer comparable.
    d = examples.load_digits()
    assert d.y_test[:12].tolist() == [2, 3, 1, 3, 5, 0, 1, 5, 0, 8, 0, 3]
    assert float(d.x_test.sum(dtype=np.float64) * 16) == 112174


def test_without_scikit_learn(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError) as caught:
        examples.load_digits()
    assert 'python -m pip install "fastconv[examples]"' in str(caught.value)


def test_stratified_split():
    y = np.array([0] * 50 + [1] * 25 + [2] * 2 + [5])
    kept, held = examples.stratified_split(y, 0.2, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(y)))
    assert np.bincount(y[held]).tolist() == [10, 5]
    assert (held != examples.stratified_split(y, 0.2, seed=2)[1]).any()
    np.testing.assert_array_equal(held, examples.stratified_split(y, 0.2, seed=1)[1])
    for fraction in (0, 1, -1):
        with pytest.raises(ValueError, match="fraction: must be between 0 and 1"):
            examples.stratified_split(y, fraction)


def test_random_shift():
    shift = examples.RandomShift(0.5)
    x = RNG.random((200, 8, 8, 2)).astype(np.float32)
    y = shift(x, np.random.default_rng(1))
    assert (y.shape, y.dtype) == (x.shape, np.float32)
    np.testing.assert_array_equal(y, shift(x, np.random.default_rng(1)))
    np.testing.assert_array_equal(examples.RandomShift(0)(x, np.random.default_rng(1)), x)
    # A ramp moved by t is the ramp minus t (away from the border).
    ramp = np.broadcast_to(np.arange(8.0)[:, None, None], (200, 8, 8, 1))
    inner = shift(ramp, np.random.default_rng(2))[:, 2:6, 2:6, 0] - ramp[:, 2:6, 2:6, 0]
    assert np.ptp(inner, axis=(1, 2)).max() < 1e-12
    assert -0.5 <= inner.min() < -0.45
    assert 0.45 < inner.max() <= 0.5
    with pytest.raises(ValueError, match="pixels: must be in"):
        examples.RandomShift(2)


# npz ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_npz(tmp_path, dtype, channels):
    x = IMAGES if channels is None else np.stack([IMAGES] * channels, axis=-1)
    x = x > 100 if dtype is bool else x.astype(dtype)
    path = tmp_path / "images.npz"
    np.savez_compressed(path, x=x, y=LABELS)
    d = examples.load_data(path)
    assert d.x_train.shape == (40, 5, 4, channels or 1)
    assert d.x_test.shape == (10, 5, 4, channels or 1)
    assert (d.x_train.dtype, d.y_train.dtype, d.classes) == (np.float32, np.int64, 5)
    largest = max(d.x_train.max(), d.x_test.max())
    assert largest == (IMAGES.max() if np.dtype(dtype).kind == "f" else 1.0)
    kept, held = examples.stratified_split(LABELS)
    np.testing.assert_array_equal(d.y_test, LABELS[held])
    scale = 1 if np.dtype(dtype).kind in "fb" else 255
    expected = x[kept].reshape(d.x_train.shape).astype(np.float32) / np.float32(scale)
    np.testing.assert_array_equal(d.x_train, expected)


def test_npz_with_its_own_test_images(tmp_path):
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS, x_test=IMAGES[:7], y_test=LABELS[:7])
    d = examples.load_npz(tmp_path / "a.npz")
    assert (len(d.x_train), len(d.x_test)) == (50, 7)
    np.savez(tmp_path / "b.npz", x=IMAGES, y=LABELS, x_test=IMAGES[:7])
    with pytest.raises(ValueError, match="array 'y_test' is missing"):
        examples.load_npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=IMAGES, y=LABELS, x_test=IMAGES[:7, :3], y_test=LABELS[:7])
    with pytest.raises(ValueError, match=r"training images are \(5, 4, 1\), test images \(3, 4"):
        examples.load_npz(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        ({"y": LABELS}, ValueError, "expected an .npz file with images x .* array 'x' is missing"),
        ({"x": IMAGES}, ValueError, "array 'y' is missing"),
        ({"x": IMAGES, "y": LABELS[:9]}, ValueError, r"y: expected one label .*\(9,\)"),
        ({"x": IMAGES[:, 0], "y": LABELS}, ValueError, r"x: expected \(m, H, W\) or .*\(50, 4\)"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, ValueError, r"x: expected .*\(0, 5, 4\)"),
        ({"x": IMAGES, "y": LABELS * 1.0}, TypeError, "y: expected integer labels, got float64"),
        ({"x": IMAGES, "y": LABELS.astype(float) - 9}, TypeError, "y: expected integer labels"),
        ({"x": IMAGES, "y": LABELS.astype(int) - 1}, ValueError, r"y: labels must be in 0 .*-1"),
        (
            {"x": IMAGES, "y": LABELS.astype(int) * 10**6},
            ValueError,
            r"y: labels must be in 0 .*4000000",
        ),
        ({"x": IMAGES * 1j, "y": LABELS}, TypeError, "x: expected numbers .* complex"),
        ({"x": IMAGES.astype(str), "y": LABELS}, TypeError, "x: expected numbers .* <U"),
        ({"x": IMAGES.astype(object), "y": LABELS}, ValueError, "holds object, which is never"),
        ({"x": np.full((50, 5, 4), np.inf), "y": LABELS}, ValueError, "x: holds NaN or infinity"),
        ({"x": IMAGES[:4], "y": LABELS[:4]}, ValueError, "y: 4 images are too few"),
    ],
)
def test_wrong_npz(tmp_path, arrays, kind, message):
    path = tmp_path / "images.npz"
    np.savez(path, **arrays)
    with pytest.raises(kind, match=message) as caught:
        examples.load_data(path)
    assert "images.npz" in str(caught.value)


def test_npz_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    path = tmp_path / "images.npz"
    np.savez(path, x=np.array([Bomb()], dtype=object), y=LABELS)
    with pytest.raises(ValueError, match="holds object, which is never loaded"):
        examples.load_npz(path)


def test_truncated_npz(tmp_path):
    path = tmp_path / "images.npz"
    np.savez_compressed(path, x=IMAGES, y=LABELS)
    whole = path.read_bytes()
    for length in (0, 3, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"images\.npz: expected an \.npz file with images x"):
            examples.load_data(path)


def npy(shape, body=b""):
    """An .npy member whose header claims `shape` whatever the body holds."""
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + body


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy((2**40, 8, 8)), "'x' should have 70368744177664 bytes but holds 0"),
        (npy((4, -2, 8)), r"'x' has the shape \(4, -2, 8\)"),
        (npy((4, 8, 8), b"1234"), "'x' should have 256 bytes but holds 4"),
        (b"\x93NUMPY\x07\x00garbage", "'x' has no readable header"),
        (b"\x93NUMPY\x01\x00\x10\x00(((((((((((((((((", "'x' has no readable header"),
        (b"", "'x' has no readable header"),
    ],
)
def test_lying_npy_header(tmp_path, member, message):
    path = tmp_path / "images.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(ValueError, match=message):
        examples.load_npz(path)


def peak_of(function, *args, **options):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (callers look at the message)
            function(*args, **options)
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


def test_zip_bomb_in_bounded_memory(tmp_path):
    path = tmp_path / "images.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy((2**20, 8, 8), bytes(2**26)))
    assert path.stat().st_size < 2**17
    peak, message = peak_of(examples.load_npz, path, max_bytes=2**22)
    assert "67108864 bytes, above the limit 4194304" in message
    assert peak < 2**20


# IDX ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dotted", [False, True])
def test_idx(tmp_path, suffix, dotted):
    parts = {TRAIN_X: IMAGES, TRAIN_Y: LABELS, TEST_X: IMAGES[:10], TEST_Y: LABELS[:10]}
    for name, array in parts.items():
        name = name.replace("-idx", ".idx") if dotted else name
        content = gzip.compress(idx(array)) if suffix else idx(array)
        (tmp_path / (name + suffix)).write_bytes(content)
    d = examples.load_data(tmp_path)
    np.testing.assert_array_equal(d.x_train[..., 0], IMAGES / np.float32(255))
    np.testing.assert_array_equal(d.x_test[..., 0], IMAGES[:10] / np.float32(255))
    np.testing.assert_array_equal(d.y_test, LABELS[:10])
    assert d.classes == 5


def test_idx_without_test_files(folder):
    (folder / TEST_X).unlink()
    (folder / TEST_Y).unlink()
    d = examples.load_idx(folder)
    assert (len(d.x_train), len(d.x_test)) == (40, 10)


@pytest.mark.parametrize("missing", [TRAIN_X, TRAIN_Y, TEST_X, TEST_Y])
def test_missing_idx_file(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"expected a file {missing} or {missing}.gz"):
        examples.load_data(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with 00000803, got an empty file"),
        (b"\x00\x00", "starts with 00000803, got 0000"),
        (b"PNG\r" + bytes(100), "starts with 00000803, got 504e470d"),
        (idx(LABELS), "starts with 00000803, got 00000801"),
        (struct.pack(">4I", 0xD03, 1, 5, 4) + bytes(80), "got 00000d03"),
        (idx(IMAGES)[:12], "ends inside its IDX header"),
        (
            idx(IMAGES)[:-1],
            r"cut short: its header says \(50, 5, 4\), 1000 bytes, but it holds 999",
        ),
        (idx(IMAGES) + b"x", "more bytes than its header says"),
        (struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), "above the limit"),
        (struct.pack(">4I", 0x803, 2**20, 28, 28) + bytes(99), "cut short: .* it holds 99"),
        (idx(IMAGES[:, :, :0]), "x: expected"),
        (idx(IMAGES[:49]), "holds 49 images but train-labels-idx1-ubyte 50 labels"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_wrong_idx(folder, content, message, packed):
    path = folder / TRAIN_X
    if packed:
        path.unlink()
        path = folder / (TRAIN_X + ".gz")
        content = gzip.compress(content)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        examples.load_data(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("length", [0, 5, 30, -9, -1])
def test_truncated_gzip(folder, length):
    whole = gzip.compress(idx(IMAGES))
    (folder / TRAIN_X).unlink()
    (folder / (TRAIN_X + ".gz")).write_bytes(whole[:length] if length else b"no gzip at all")
    with pytest.raises(ValueError, match=r"ubyte\.gz: expected a whole gzip file, but"):
        examples.load_data(folder)


def test_gzip_bomb_in_bounded_memory(folder):
    (folder / TRAIN_X).unlink()
    path = folder / (TRAIN_X + ".gz")
    # The header says 1000 bytes; 64 MiB follow.
    path.write_bytes(gzip.compress(idx(IMAGES) + bytes(2**26), 9))
    peak, message = peak_of(examples.load_idx, folder)
    assert "more bytes than its header says" in message
    assert peak < 2**22
    # The header says 64 MiB, and they follow, but the limit is 4 MiB.
    header = struct.pack(">4I", 0x803, 2**20, 8, 8)
    path.write_bytes(gzip.compress(header + bytes(2**26), 9))
    peak, message = peak_of(examples.load_idx, folder, max_bytes=2**22)
    assert "above the limit 4194304" in message
    assert peak < 2**22


def test_oversized_header_in_bounded_memory(folder):
    (folder / TRAIN_X).write_bytes(struct.pack(">4I", 0x803, 2**20, 28, 28) + bytes(1000))
    peak, message = peak_of(examples.load_idx, folder)
    assert "cut short" in message
    assert peak < 2**22


def test_wrong_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file"):
        examples.load_data(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=f"expected a file {TRAIN_X}"):
        examples.load_data(tmp_path)
    (tmp_path / "images.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"expected an \.npz file with x and y, or a folder"):
        examples.load_data(tmp_path / "images.png")


# Recipes --------------------------------------------------------------------------------------


def test_recipes_know_every_example():
    assert set(examples.RECIPES) == {"binary_cnn", "two_conv_cnn", "digits_cnn"}
    recipe = examples.DIGITS_RECIPE
    model = examples.digits_cnn()
    assert recipe.optimizer(model).lr == recipe.lr
    assert recipe.optimizer(model, 0.5).lr == 0.5
    assert recipe.callbacks(0.5)[0].rate(2) == 0.5 * recipe.decay
    assert examples.RECIPES["two_conv_cnn"].augment() is None


def test_one_epoch_on_the_digits_already_reads():
    """A smoke test of the whole recipe; the accuracy gate trains in full elsewhere."""
    d, model, recipe = examples.load_digits(), examples.digits_cnn(), examples.DIGITS_RECIPE
    nn.fit(
        model,
        nn.SoftmaxCrossEntropy(),
        recipe.optimizer(model),
        d.x_train,
        d.y_train,
        epochs=1,
        batch_size=recipe.batch_size,
        augment=recipe.augment(),
        callbacks=recipe.callbacks(),
    )
    accuracy = nn.evaluate(model, nn.SoftmaxCrossEntropy(), d.x_test, d.y_test)[1]
    assert accuracy > 0.9
    assert loaders.MAX_BYTES == 2**30
