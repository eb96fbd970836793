"""A short training run with checkpoints that kills itself; run by test_nn_checkpoint.py.

    python killed_run.py CHECKPOINT CALL COUNT

SIGKILL comes in place of the COUNT-th call of CALL: "fsync" and "replace" are those of a
checkpoint being written, "write" is one of the writes into its temporary file, "step" a training
step. The naive loops compute, so nothing is compiled.
"""

import os
import signal
import sys
import zipfile

import numpy as np

from fastconv import nn, reference


def run(checkpoint=None, *, resume=False, callbacks=(), epochs=4, batch_size=4, **options):
    """Train a tiny network with dropout, batch statistics and early stopping."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 4, 4, 1)).astype(np.float32)
    y = rng.integers(0, 2, 12)
    model = nn.Sequential(
        nn.Conv(1, 2, 3, rng=rng),
        nn.BatchNorm(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3, seed=1),
        nn.Dense(8, 2, rng=rng),
        ops=reference,
    )
    optimizer = nn.Adam(model.parameters(), lr=options.pop("lr", 0.01), weight_decay=0.01)
    history = nn.fit(
        model,
        nn.SoftmaxCrossEntropy(),
        optimizer,
        x,
        y,
        epochs=epochs,
        batch_size=batch_size,
        validation=(x[:6], y[:6]),
        seed=3,
        early_stopping=options.pop("early_stopping", nn.EarlyStopping(3)),
        callbacks=[nn.ExponentialDecay(0.01, 0.9), *callbacks],
        checkpoint=checkpoint,
        resume=resume,
        **options,
    )
    return model, optimizer, history


def die_at(owner, name, count):
    """Replace `owner.name` by a function whose `count`-th call is SIGKILL."""
    original, calls = getattr(owner, name), [0]

    def counted(*args, **kwargs):
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    path, call, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    owners = {"fsync": os, "replace": os, "write": zipfile.ZipFile, "step": nn.Adam}
    die_at(owners[call], "open" if call == "write" else call, number)
    run(path)
