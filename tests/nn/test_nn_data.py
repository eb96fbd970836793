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


# Pixels of any dtype --------------------------------------------------------------------------

DARK = IMAGES // 2  # uint8, none of which reaches 255
WHOLE = IMAGES.astype(np.int64) % 17  # 0 .. 16, as scikit-learn's digits
WIDE = IMAGES.astype(np.uint16) * 257  # 0 .. 65535
UNIT = IMAGES / np.float32(255)


def load_pair(folder, x, x_test):
    np.savez(folder / "a.npz", x=x, y=LABELS, x_test=x_test, y_test=LABELS)
    d = examples.load_npz(folder / "a.npz")
    return d.x_train[..., 0], d.x_test[..., 0]


@pytest.mark.parametrize(
    ("x", "divisor"),
    [
        (DARK, 255), (IMAGES // 200, 255), (IMAGES * 0, 255), (WHOLE, 16), (WIDE, 65535),
        (-WHOLE, 16), (WHOLE - 4, 12), (WHOLE.astype(np.int8) * 7, 112), (UNIT, 1),
        (UNIT.astype(np.float16), 1), (UNIT.astype(float) * 4 - 2, 1), (IMAGES > 9, 1),
        (IMAGES.astype(np.int64) * 0, 1), (IMAGES.astype(">u2") * 257, 65535),
    ],
)  # fmt: skip
def test_the_scale_of_one_array(tmp_path, x, divisor):
    expected = x.astype(np.float32) / np.float32(divisor)
    for found in load_pair(tmp_path, x, x[::-1]):
        np.testing.assert_array_equal(np.sort(found, None), np.sort(expected, None))
    np.savez(tmp_path / "b.npz", x=x, y=LABELS)
    kept, held = examples.stratified_split(LABELS)
    d = examples.load_npz(tmp_path / "b.npz")
    np.testing.assert_array_equal(d.x_train[..., 0], expected[kept])
    np.testing.assert_array_equal(d.x_test[..., 0], expected[held])


@pytest.mark.parametrize(
    ("x", "x_test", "divisors"),
    [
        (IMAGES, UNIT, (255, 1)), (UNIT, IMAGES, (1, 255)), (DARK, UNIT.astype(float), (255, 1)),
        (IMAGES, WIDE, (255, 65535)), (WIDE, DARK, (65535, 255)), (IMAGES > 9, DARK, (1, 255)),
        (IMAGES, IMAGES.astype(int), (255, 255)), (DARK.astype(int), IMAGES, (255, 255)),
        (WHOLE, WHOLE // 2, (16, 16)), (WHOLE // 2, WHOLE, (16, 16)), (WHOLE, UNIT, (16, 1)),
        (UNIT * 4 - 2, UNIT, (1, 1)), (UNIT * 9, UNIT, (1, 1)),
    ],
)  # fmt: skip
def test_each_array_has_its_own_scale(tmp_path, x, x_test, divisors):
    found = load_pair(tmp_path, x, x_test)
    for got, array, divisor in zip(found, (x, x_test), divisors, strict=True):
        np.testing.assert_array_equal(got, array.astype(np.float32) / np.float32(divisor))


@pytest.mark.parametrize(
    ("x", "x_test", "named"),
    [
        (IMAGES * 1.0, UNIT, "x holds float64 up to 255, but x_test (float32)"),
        (UNIT, IMAGES * 1.0, "x_test holds float64 up to 255, but x (float32)"),
        (IMAGES, IMAGES * 1.0, "x_test holds float64 up to 255, but x (uint8)"),
        (-WHOLE * 1.0, WHOLE, "x holds float64 up to 16, but x_test (int64)"),
    ],
)
def test_floats_in_another_scale_than_the_rest(tmp_path, x, x_test, named):
    with pytest.raises(ValueError, match="floats are taken as they are") as caught:
        load_pair(tmp_path, x, x_test)
    assert named in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize("name", ["x", "x_test"])
def test_pixels_that_are_no_numbers_are_named(tmp_path, name, bad):
    arrays = {"x": UNIT.astype(float), "x_test": UNIT.astype(float)}
    arrays[name][3, 2, 1] = bad
    with pytest.raises(ValueError, match=rf"a\.npz: {name}: holds NaN or infinity"):
        load_pair(tmp_path, **arrays)


# Names and labels -----------------------------------------------------------------------------

NAMES = [("x", "y", "x_test", "y_test"), ("x_train", "y_train", "x_test", "y_test"),
         ("train_images", "train_labels", "test_images", "test_labels")]  # fmt: skip


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("own_test", [True, False])
def test_names_of_arrays(tmp_path, names, own_test):
    arrays = dict(zip(names, (IMAGES, LABELS, IMAGES[:7], LABELS[:7]), strict=True))
    if not own_test:
        del arrays[names[2]], arrays[names[3]]
    np.savez_compressed(tmp_path / "a.npz", **arrays, val_images=IMAGES, other=LABELS)
    d = examples.load_data(tmp_path / "a.npz")
    assert (len(d.x_train), len(d.x_test)) == ((50, 7) if own_test else (40, 10))
    assert d.class_names is None
    for name in list(arrays):
        without = {n: a for n, a in arrays.items() if n != name}
        np.savez(tmp_path / "b.npz", **without)
        with pytest.raises(ValueError, match=rf"b\.npz: .*array '{name}' is missing") as caught:
            examples.load_npz(tmp_path / "b.npz")
        assert all(n in str(caught.value) for n in without)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("data", "target"), "(found: data, target)"),
        (("arr_0", "arr_1"), "(found: arr_0, arr_1)"),
        (("x", "y", "x_train", "y_train"), "(found: x, x_train, y, y_train)"),
        (("x", "y", "test_images", "test_labels"), "beside x are called x_test, not test_images"),
        (("train_images", "train_labels", "x_test", "y_test"), "called test_images, not x_test"),
        ((), "no array"),
    ],
)
def test_other_names_are_listed(tmp_path, names, says):
    arrays = {n: LABELS if n[0] == "y" or "labels" in n else IMAGES for n in names}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"a\.npz: expected an \.npz file with images x") as caught:
        examples.load_npz(tmp_path / "a.npz")
    assert says in str(caught.value)


ANIMALS = np.array(["cow", "cat", "\u00f6re", "ant", "bee"])[LABELS]
ORDER = np.array([3, 2, 4, 0, 1])  # of the names above: ant, bee, cat, cow, \u00f6re
ONE_HOT = np.eye(5, dtype=np.float32)[LABELS]


@pytest.mark.parametrize(
    ("y", "expected", "classes", "names"),
    [
        (LABELS[:, None], LABELS, 5, None),
        (LABELS[:, None].astype(np.int32), LABELS, 5, None),
        (ONE_HOT, LABELS, 5, None),
        (ONE_HOT.astype(np.uint8), LABELS, 5, None),
        (ONE_HOT.astype(bool), LABELS, 5, None),
        (np.pad(ONE_HOT, ((0, 0), (0, 2))), LABELS, 7, None),
        (np.eye(2)[LABELS % 2], LABELS % 2, 2, None),
        (LABELS % 2 == 1, LABELS % 2, 2, None),
        (ANIMALS, ORDER[LABELS], 5, ("ant", "bee", "cat", "cow", "\u00f6re")),
        (ANIMALS[:, None], ORDER[LABELS], 5, ("ant", "bee", "cat", "cow", "\u00f6re")),
        (np.char.encode(ANIMALS, "utf-8"), ORDER[LABELS], 5,
         ("ant", "bee", "cat", "cow", "\u00f6re")),
        ((LABELS * 5).astype(str), LABELS, 5, ("0", "5", "10", "15", "20")),
        (LABELS + 1, LABELS + 1, 6, None),
        (LABELS * 2, LABELS * 2, 9, None),
        (LABELS * 0, LABELS * 0, 1, None),
    ],
)  # fmt: skip
def test_labels_of_any_kind(tmp_path, y, expected, classes, names):
    np.savez(tmp_path / "a.npz", x=IMAGES, y=y, x_test=IMAGES[:5], y_test=y[:5])
    d = examples.load_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(d.y_train, expected)
    np.testing.assert_array_equal(d.y_test, expected[:5])
    assert (d.y_train.dtype, d.y_test.dtype, d.classes) == (np.int64, np.int64, classes)
    assert d.class_names == names
    np.savez(tmp_path / "b.npz", x=IMAGES, y=y)
    d = examples.load_npz(tmp_path / "b.npz")
    kept, held = examples.stratified_split(expected)
    np.testing.assert_array_equal(d.y_train, expected[kept])
    np.testing.assert_array_equal(d.y_test, expected[held])


@pytest.mark.parametrize(
    ("y", "kind", "says"),
    [
        (ONE_HOT * 0.5, ValueError, "one-hot rows with a single 1 each"),
        (ONE_HOT * 0, ValueError, "one-hot rows"),
        (ONE_HOT + ONE_HOT[::-1], ValueError, "one-hot rows"),
        (np.stack([LABELS, LABELS], axis=1), ValueError, "one-hot rows"),
        (np.stack([ANIMALS, ANIMALS], axis=1), ValueError, "one-hot rows"),
        (ONE_HOT[:49], ValueError, r"x is \(50, 5, 4\), y \(49, 5\)"),
        (ANIMALS[:49], ValueError, r"x is \(50, 5, 4\), y \(49,\)"),
        (ONE_HOT[..., None], ValueError, r"y \(50, 5, 1\)"),
        (np.int64(3), ValueError, r"y \(\)"),
        (LABELS.astype(np.int8) - 1, ValueError, r"0 \.\. 65535, got -1 \.\. 3; np\.unique\(y,"),
        (LABELS * 1.0, TypeError, r"got float64; if they are classes, save y\.astype\(int\)"),
        (LABELS * 1j, TypeError, "got complex128"),
        (ANIMALS.astype(object), ValueError, "never loaded; astype"),
    ],
)
def test_labels_that_are_none(tmp_path, y, kind, says):
    np.savez(tmp_path / "a.npz", x=IMAGES, y=y)
    with pytest.raises(kind, match=says) as caught:
        examples.load_npz(tmp_path / "a.npz")
    assert "a.npz" in str(caught.value)


def test_names_of_classes_that_only_the_test_has(tmp_path):
    y_test = np.where(np.arange(50) % 2, "emu", "cow")
    np.savez(tmp_path / "a.npz", x=IMAGES, y=ANIMALS, x_test=IMAGES, y_test=y_test)
    d = examples.load_npz(tmp_path / "a.npz")
    assert d.class_names == ("ant", "bee", "cat", "cow", "emu", "\u00f6re")
    assert (d.classes, d.y_test[:2].tolist(), d.y_train[0]) == (6, [3, 4], 3)
    np.savez(tmp_path / "b.npz", x=IMAGES, y=ANIMALS, x_test=IMAGES, y_test=LABELS)
    with pytest.raises(TypeError, match=r"of one kind, got y <U3 and y_test uint8"):
        examples.load_npz(tmp_path / "b.npz")


def test_nearly_empty_images_are_no_bomb(tmp_path):
    """100,000 images of 28x28, nearly all zero: 76 kB that grow to 78 MB."""
    x = np.zeros((100_000, 28, 28), np.uint8)
    x[::1000, 14, 14] = 255
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=x, y=np.arange(100_000) % 10)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("x.npy")
        assert info.file_size > 900 * info.compress_size
    d = examples.load_npz(path)
    assert d.x_train.shape == (80_000, 28, 28, 1)
    assert d.x_train.sum() + d.x_test.sum() == 100


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


OTHER_NAMES = {
    "MNIST": [TRAIN_X, TRAIN_Y, TEST_X, TEST_Y],
    "EMNIST": [f"emnist-letters-{part}-{rest}" for part in ("train", "test")
               for rest in ("images-idx3-ubyte", "labels-idx1-ubyte")],
    "QMNIST": [f"qmnist-{part}-{rest}" for part in ("train", "test")
               for rest in ("images-idx3-ubyte", "labels-idx2-int")],
    "dotted": [n.replace("-idx", ".idx") for n in (TRAIN_X, TRAIN_Y, TEST_X, TEST_Y)],
    "test": [TRAIN_X, TRAIN_Y, TEST_X.replace("t10k", "test"), TEST_Y.replace("t10k", "test")],
}  # fmt: skip


def label_file(name, labels):
    """Labels as the name says: bytes, or QMNIST's integers, whose first column counts."""
    if "idx2-int" not in name:
        return idx(labels)
    columns = np.stack([labels, *(labels * 0 + n for n in range(7))], axis=1).astype(">i4")
    return struct.pack(">3I", 0xC02, *columns.shape) + columns.tobytes()


@pytest.mark.parametrize("names", OTHER_NAMES.values(), ids=OTHER_NAMES)
@pytest.mark.parametrize(
    ("packed", "suffix", "in_folders"),
    [(False, "", False), (True, ".gz", False), (True, "", False), (False, ".gz", False),
     (False, "", True), (True, ".gz", True)],
)  # fmt: skip
@pytest.mark.parametrize("own_test", [True, False])
def test_names_and_packings_of_idx_files(tmp_path, names, packed, suffix, in_folders, own_test):
    contents = [idx(IMAGES), label_file(names[1], LABELS)]
    contents += [idx(IMAGES[:10]), label_file(names[3], LABELS[:10])]
    for name, content in list(zip(names, contents, strict=True))[: 4 if own_test else 2]:
        path = tmp_path / (name + suffix)
        if in_folders:
            path.mkdir()
            path = path / path.name
        path.write_bytes(gzip.compress(content) if packed else content)
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n", encoding="utf-8")
    d = examples.load_data(tmp_path)
    assert (len(d.x_train), len(d.x_test)) == ((50, 10) if own_test else (40, 10))
    assert (d.classes, d.class_names, d.y_train.dtype) == (5, None, np.int64)
    if own_test:
        np.testing.assert_array_equal(d.y_train, LABELS)
        np.testing.assert_array_equal(d.x_test[..., 0], IMAGES[:10] / np.float32(255))


def test_several_sets_in_one_folder(folder):
    for name in OTHER_NAMES["EMNIST"] + OTHER_NAMES["QMNIST"]:
        (folder / name).write_bytes(b"not looked at")
    assert len(examples.load_data(folder).x_train) == 50  # MNIST's own names come first
    for name in OTHER_NAMES["MNIST"]:
        (folder / name).unlink()
    with pytest.raises(ValueError, match="found those of emnist-letters-, qmnist-: give one"):
        examples.load_data(folder)


def test_a_missing_file_of_another_set_is_named(tmp_path):
    for name in OTHER_NAMES["EMNIST"][:1]:
        (tmp_path / name).write_bytes(idx(IMAGES))
    with pytest.raises(
        FileNotFoundError, match=r"emnist-letters-train-labels-idx1-ubyte.*found: em"
    ):
        examples.load_data(tmp_path)


def test_what_a_folder_without_idx_files_holds_is_listed(tmp_path):
    for name in "cat.png", "dog.png", "raw":
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match=r"found: cat\.png, dog\.png, raw"):
        examples.load_data(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="found: an empty folder"):
        examples.load_data(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (idx(LABELS), "IDX file of 32-bit integers with 2 axes, which starts with 00000c02"),
        (struct.pack(">3I", 0xC02, 50, 8) + bytes(99), r"\(50, 8\), 1600 bytes, but it holds 99"),
        (struct.pack(">3I", 0xC02, 50, 0), "in the first column, found no column"),
        (struct.pack(">3I", 0xC02, 2**31, 2**31), "above the limit"),
    ],
)
def test_wrong_labels_of_qmnist(tmp_path, content, says):
    names = OTHER_NAMES["QMNIST"]
    (tmp_path / names[0]).write_bytes(idx(IMAGES))
    (tmp_path / names[1]).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        examples.load_data(tmp_path)
    assert names[1] in str(caught.value)


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
    with pytest.raises(FileNotFoundError, match=f"expected IDX files such as {TRAIN_X}"):
        examples.load_data(tmp_path)
    (tmp_path / "images.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"expected an \.npz file with x and y, or a folder"):
        examples.load_data(tmp_path / "images.png")


# Recipes --------------------------------------------------------------------------------------


def test_recipes_know_every_example():
    assert set(examples.RECIPES) == {"binary_cnn", "two_conv_cnn", "digits_cnn", "fashion_cnn"}
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
