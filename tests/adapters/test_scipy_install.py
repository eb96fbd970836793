"""`install` and `uninstall`: fastconv's functions in place of SciPy's, and SciPy's again."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from fastconv.adapters import scipy as fast
from fastconv.adapters.scipy.own import NDIMAGE, SIGNAL, SIGNAL_MODULE

PLACES = [
    *((scipy.ndimage, name, getattr(fast, name)) for name in NDIMAGE),
    *((scipy.signal, name, getattr(fast, name)) for name in SIGNAL),
    *((scipy.signal, name, getattr(fast.signal, name)) for name in SIGNAL_MODULE),
]


@pytest.fixture
def own():
    """SciPy's functions; whatever the test does, they are there again afterwards."""
    found = [getattr(module, name) for module, name, _ in PLACES]
    yield found
    for (module, name, _), function in zip(PLACES, found, strict=True):
        setattr(module, name, function)


def now():
    return [getattr(module, name) for module, name, _ in PLACES]


def test_install_puts_all_in_place_and_uninstall_restores_exactly(own):
    ours = [function for _, _, function in PLACES]
    assert not set(own) & set(ours)
    everything = dict(vars(scipy.ndimage)), dict(vars(scipy.signal))
    fast.install()
    assert now() == ours
    fast.install()
    assert now() == ours
    fast.uninstall()
    assert (dict(vars(scipy.ndimage)), dict(vars(scipy.signal))) == everything
    fast.uninstall()
    assert now() == own


def test_both_while_installed_answer_as_before(own):
    x = np.random.default_rng(0).random((300, 300))
    small = x[:4, :4]
    expected = [f(a, np.ones((3, 3))) for f in own[:1] for a in (x, small)]
    fast.install()
    for a, e in zip((x, small), expected, strict=True):  # the second is handed to SciPy's
        np.testing.assert_allclose(scipy.ndimage.convolve(a, np.ones((3, 3))), e, atol=1e-13)


def test_what_another_put_in_place_stays(own):
    def theirs(*args, **options):
        raise AssertionError

    scipy.ndimage.sobel = theirs
    fast.install()
    assert scipy.ndimage.sobel is theirs
    scipy.ndimage.laplace = theirs
    fast.uninstall()
    assert scipy.ndimage.sobel is scipy.ndimage.laplace is theirs


def test_names_imported_before_stay_scipys(own):
    from scipy.ndimage import correlate

    fast.install()
    assert correlate is not fast.correlate
    fast.uninstall()


def test_threads_that_install_and_uninstall_leave_one_of_both(own):
    def work(function):
        for _ in range(200):
            function()

    threads = [threading.Thread(target=work, args=(f,)) for f in (fast.install, fast.uninstall) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert now() in (own, [function for _, _, function in PLACES])
    fast.uninstall()
    assert now() == own


def test_importing_installs_nothing_and_compiles_nothing():
    code = (
        "import scipy.ndimage, sys; before = scipy.ndimage.correlate\n"
        "import fastconv.adapters.scipy as fast\n"
        "assert scipy.ndimage.correlate is before and 'numba' not in sys.modules\n"
        "fast.install(); assert scipy.ndimage.correlate is fast.correlate\n"
        "from scipy.ndimage import sobel; assert sobel is fast.sobel\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
