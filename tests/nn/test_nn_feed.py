"""Batches given one by one, and the thread that makes them ahead of the training."""

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from test_nn_stored import FLOATS, SCALE, Lazy, X, Y, assert_same, network, train

from fastconv import nn
from fastconv.nn import prefetch

BATCHES = [(FLOATS[i : i + 8], Y[i : i + 8]) for i in range(0, len(X), 8)]


def threads():
    return [t for t in threading.enumerate() if t.name == "fastconv-feed"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert not threads()


class Shuffled:
    """Batches in another order each epoch, as a loader of one's own may have them."""

    def __init__(self, x=X):
        self.x, self.epoch, self.passes = x, None, []

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.passes.append(self.epoch)
        order = np.random.default_rng(self.epoch).permutation(len(self.x))
        return ((self.x[i], Y[i]) for i in np.split(order, [8, 20, 30]))

    def __len__(self):
        return 4


class Counted:
    """Batches without a length, that change from pass to pass."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter([(x * np.float32(self.passes), y) for x, y in BATCHES])


# Batches one by one -------------------------------------------------------------------------------


def test_a_list_of_batches_is_an_array_in_order():
    by_list = train(BATCHES, None, validation=(FLOATS, Y))
    assert_same(by_list, train(FLOATS, shuffle=False, validation=(FLOATS, Y)))


def test_batches_of_bytes():
    batches = [(X[i : i + 8], list(Y[i : i + 8])) for i in range(0, len(X), 8)]
    found = train(batches, None, **SCALE, validation=iter([(X, Y)]), epochs=1)
    expected = train(FLOATS, shuffle=False, validation=(FLOATS, Y), epochs=1)
    assert_same(found, expected)


def test_every_epoch_is_one_pass():
    counted, states = Counted(), []

    class Looking:
        def on_batch_end(self, state):
            states.append((state.epoch, state.images, state.steps_per_epoch, state.images_seen))

    train(counted, None, epochs=3, callbacks=[Looking()])
    assert counted.passes == 3
    assert states[0] == (1, 0, 0, 8)
    assert states[-1] == (3, 37, 5, 37)


def test_an_iterator_is_good_for_one_epoch():
    found = train(iter(BATCHES), None, epochs=1)
    assert_same(found, train(FLOATS, shuffle=False, epochs=1))
    with pytest.raises(ValueError, match=r"^x: .* gives its batches once, but 2 epochs need them"):
        train(iter(BATCHES), None, epochs=2)


def test_a_resumed_run_gets_the_batches_of_its_epoch(tmp_path):
    whole = Shuffled()
    expected = train(whole, None, epochs=3, **SCALE)
    assert whole.passes == [1, 2, 3]
    path = tmp_path / "run.npz"
    train(Shuffled(), None, epochs=1, checkpoint=path, **SCALE)
    rest = Shuffled()
    found = train(rest, None, epochs=3, checkpoint=path, resume=True, **SCALE)
    assert rest.passes[-2:] == [2, 3]
    assert_same(found, expected)
    with pytest.raises(ValueError, match="another run: data was batches="):
        train(Counted(), None, epochs=4, checkpoint=path, resume=True, **SCALE)


def test_evaluate_and_predict_of_batches():
    model, loss = network(), nn.SoftmaxCrossEntropy()
    z = model.predict(FLOATS)
    np.testing.assert_array_equal(model.predict(BATCHES), z)
    np.testing.assert_array_equal(model.predict(x for x, _ in BATCHES), z)
    np.testing.assert_array_equal(model.predict(Shuffled(X), **SCALE)[:8].shape, (8, 3))
    assert nn.evaluate(model, loss, BATCHES) == nn.evaluate(model, loss, FLOATS, Y)


@pytest.mark.parametrize(
    ("batches", "kind", "text"),
    [
        ([], ValueError, "x: it has no batch"),
        ([FLOATS], TypeError, r"x: batch 0: a pair \(images, labels\) is needed, got an array"),
        ([(FLOATS[:0], Y[:0])], ValueError, r"x: batch 0: images \(m, ...\), m at least 1"),
        ([(FLOATS, Y[:3])], ValueError, r"x: batch 0: 37 labels, one per image, are needed"),
        ([(X, Y)], TypeError, "x: batch 0: images: dtype must be float32 or float64, got uint8"),
        ([(FLOATS, Y), (FLOATS, Y[:1])], ValueError, "x: batch 1: 37 labels"),
        ([(FLOATS, Y), None], TypeError, "x: batch 1: a pair"),
        ([(FLOATS, Y + 5)], ValueError, "y: "),
        ([(FLOATS[:, :4], Y)], ValueError, "x: .*Dense"),
    ],
)
def test_wrong_batches(batches, kind, text, tmp_path):
    with pytest.raises(kind, match=f"^{text}"):
        train(batches, None)


def test_a_given_batch_of_one_value():
    model = nn.Sequential(
        nn.Conv(1, 4, 3, rng=0), nn.BatchNorm(4), nn.Flatten(), nn.Dense(4, 3, rng=0)
    )
    with pytest.raises(ValueError, match="in layer 1") as caught:
        train([(FLOATS[:1, :3, :3], Y[:1])], None, model=model)
    assert "batch_size" not in str(caught.value)


def test_no_batch_in_a_later_epoch():
    class Spent(list):
        def __iter__(self):
            found, self[:] = list(super().__iter__()), []
            return iter(found)

    with pytest.raises(ValueError, match="x: it has no batch in epoch 2"):
        train(Spent(BATCHES), None)


# The thread -------------------------------------------------------------------------------------


class Slow(Lazy):
    """Counts what is read, and may fail."""

    def __init__(self, fail_at=None, error=None):
        super().__init__(X, (slice, np.ndarray))
        self.fail_at, self.error, self.batches = fail_at, error, 0
        self.third = threading.Event()

    def __getitem__(self, index):
        if threading.current_thread() is not threading.main_thread():
            self.batches += 1
            if self.batches == 3:
                self.third.set()
            if self.batches == self.fail_at:
                raise self.error
        return super().__getitem__(index)


def test_batches_are_read_while_others_are_used():
    source, waited = Slow(), []

    class Waiting:
        def on_batch_end(self, state):
            if state.step == 1 and state.epoch == 1:
                waited.append(source.third.wait(30))  # for ever, if nothing is read ahead

    train(source, callbacks=[Waiting()], **SCALE)
    assert waited == [True]


def test_a_few_batches_are_in_memory():
    alive, most = [], []

    class Batch(np.ndarray):
        """An array that can be counted."""

    def counted(x, rng):
        x = (x + 0).view(Batch)
        alive.append(weakref.ref(x))
        most.append(sum(reference() is not None for reference in alive))
        return x

    class Pausing:
        def on_batch_end(self, state):
            time.sleep(0.01)  # the thread comes as far ahead as it may

    many = np.concatenate([FLOATS] * 4)
    train(many, np.concatenate([Y] * 4), epochs=1, augment=counted, callbacks=[Pausing()])
    assert 3 <= max(most) <= prefetch.AHEAD + 3


def test_arrays_that_need_no_work_need_no_thread():
    seen = []

    class Looking:
        def on_batch_end(self, state):
            seen.extend(threads())

    train(FLOATS, callbacks=[Looking()])
    assert not seen
    train(FLOATS, callbacks=[Looking()], augment=lambda x, rng: x)
    assert seen


class BrokenError(Exception):
    pass


@pytest.mark.parametrize(
    "error", [BrokenError("no"), OSError(5, "I/O"), StopIteration(), SystemExit(3)]
)
def test_an_error_of_the_thread_is_raised_in_the_caller(error, tmp_path):
    path = tmp_path / "run.npz"
    kind = RuntimeError if isinstance(error, StopIteration) else type(error)
    with pytest.raises(kind) as caught:
        train(Slow(3, error), checkpoint=path, **SCALE)
    found = caught.value.__cause__ if kind is RuntimeError else caught.value
    assert found is error
    assert any(entry.name == "__getitem__" for entry in caught.traceback) or kind is RuntimeError
    # What was on the disk is: the run goes on from there.
    assert nn.load_checkpoint(path).epoch == 0
    resumed = train(Slow(), checkpoint=path, resume=True, **SCALE)
    assert_same(resumed, train(FLOATS))


@pytest.mark.parametrize("name", ["augment", "transform"])
def test_errors_of_augment_and_transform(name):
    calls = []

    def fails(x, *rng):
        calls.append(threading.current_thread().name)
        if len(calls) > 3:
            raise BrokenError(name)
        return x.astype(np.float32)

    with pytest.raises(BrokenError, match=name):
        train(X, **{**SCALE, name: fails})
    assert calls[-1] == "fastconv-feed"


def test_the_thread_has_the_callers_error_state_and_threads():
    from fastconv import get_num_threads, num_threads

    found = []

    def looks(x, rng):
        found.append((np.geterr()["over"], get_num_threads()))
        return x

    with num_threads(1), np.errstate(all="raise"):
        train(FLOATS, augment=looks, epochs=1)
    assert set(found) == {("ignore", 1)}


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenError])
def test_the_thread_ends_with_fit(error):
    class Stopping:
        def on_batch_end(self, state):
            assert threads()
            if state.step == 2:
                raise error

    with pytest.raises(error):
        train(Slow(), callbacks=[Stopping()], **SCALE)
    assert not threads()


def test_ctrl_c_while_a_batch_is_awaited(tmp_path):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    class Hanging(Lazy):
        def __getitem__(self, index):
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.3)
            return super().__getitem__(index)

    if not hasattr(signal, "setitimer"):
        pytest.skip("no interval timer on this system")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            train(Hanging(X, (slice, np.ndarray)), checkpoint=tmp_path / "run.npz", **SCALE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert nn.load_checkpoint(tmp_path / "run.npz").epoch == 0


def test_a_generator_that_is_dropped_ends_its_thread():
    items = prefetch.prefetched(iter(range(1000)))
    assert next(items) == 0
    assert threads()
    del items
    assert not threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("what", ["predict", "fit", "go on"])
def test_a_fork_while_batches_are_read(what):
    """A child predicts or trains anew; going on with the parent's batches is refused, not hung.

    In a process without other libraries' threads.
    """
    code = f"import test_nn_feed; test_nn_feed.fork_while_batches_are_read({what!r})"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def fork_while_batches_are_read(what):
    """Fork within a batch, and wait for the child."""

    class Forking:
        child = None

        def on_batch_end(self, state):
            if state.step != 2 or self.child is not None:
                return
            self.child = os.fork()
            if self.child == 0 and what != "go on":
                try:
                    if what == "predict":
                        state.model.predict(X, **SCALE)
                    else:
                        train(Slow(), epochs=1, **SCALE)
                    os._exit(0)
                finally:
                    os._exit(1)

    forking = Forking()
    try:
        train(Slow(), epochs=1, callbacks=[forking], **SCALE)
    except RuntimeError as error:
        if forking.child == 0:
            os._exit(0 if "this process was forked" in str(error) else 2)
        raise
    if forking.child == 0:
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(forking.child, 0)[1]) == 0
