"""Train on a zarr array, and say in JSON how many bytes the process took at most.

    python tests/robustness/stored_run.py FOLDER --megabytes 2000

The array, of 128x128x3 bytes an image in chunks of four, is written into FOLDER if it is not there,
by a process of its own. It needs Linux, which tells a process's peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import zarr

from fastconv import nn
from fastconv.examples import RandomFlip

IMAGE, CHUNK = (128, 128, 3), 4


def peak_bytes():
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def write(path, images):
    """Images of noise around a grey that tells the class."""
    stored = zarr.create_array(
        path, shape=(images, *IMAGE), dtype="u1", chunks=(CHUNK, *IMAGE), compressors=None
    )
    rng = np.random.default_rng(0)
    for start in range(0, images, 64):
        stop = min(start + 64, images)
        grey = 60 * (np.arange(start, stop) % 3)[:, None, None, None]
        stored[start:stop] = grey + rng.integers(0, 99, (stop - start, *IMAGE))


def network():
    return nn.Sequential(
        nn.Conv(3, 8, 5, stride=4, activation="relu", rng=0),
        nn.MaxPool(2),
        nn.GlobalAvgPool(),
        nn.Dense(8, 3, rng=0),
    )


def train(model, x, y, folder):
    optimizer = nn.Adam(model.parameters(), lr=0.03)
    return nn.fit(
        model, nn.SoftmaxCrossEntropy(), optimizer, x, y, epochs=1, scale=1 / 255,
        augment=RandomFlip(), validation=(x, y), checkpoint=folder / "run.npz",
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--write", action="store_true", help="write the array and do no more")
    args = parser.parse_args()
    images = args.megabytes * 10**6 // int(np.prod(IMAGE))
    path = args.folder / f"{args.megabytes}.zarr"
    if args.write:
        write(path, images)
        return
    if not path.exists():
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--write"], check=True)
    x, y = zarr.open_array(path, mode="r"), np.arange(images) % 3
    small = np.zeros((33, *IMAGE), np.uint8)
    train(network(), small, y[:33], args.folder)  # kernels are loaded, a batch's memory is taken
    before, start, model = peak_bytes(), time.perf_counter(), network()
    history = train(model, x, y, args.folder)
    model.predict(x, 32, scale=1 / 255)
    found = {
        "data": x.nbytes,
        "before": before,
        "peak": peak_bytes(),
        "seconds": round(time.perf_counter() - start, 1),
        "val_accuracy": history["val_accuracy"][-1],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
