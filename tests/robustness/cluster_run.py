"""Predict in a cluster of two workers on a zarr larger than their memory; say in JSON how it went.

    python tests/robustness/cluster_run.py FOLDER --megabytes 800 --limit 700

``--limit`` is each worker's memory in megabytes. The result goes into a zarr, chunk by chunk, and
is then compared, image by image, with what one process computes in memory. It needs Linux, which
tells a process's peak.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import zarr
from distributed import Client, LocalCluster
from stored_run import peak_bytes

from fastconv import nn
from fastconv.adapters import dask as adapter

IMAGE = (1024, 1024, 3)
CHUNK = (1, 512, 512, 3)


def network():
    return nn.Sequential(
        nn.Conv(3, 6, 3, padding="same", activation="relu", rng=0),
        nn.MaxPool(2),
        nn.Conv(6, 4, 5, padding="same", padding_mode="reflect", rng=1),
    )


def write(path, images):
    stored = zarr.create_array(
        path, shape=(images, *IMAGE), dtype="f4", chunks=CHUNK, compressors=None
    )
    rng = np.random.default_rng(0)
    for i in range(images):
        stored[i] = rng.standard_normal(IMAGE, np.float32)
    return stored


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=800)
    parser.add_argument("--limit", type=int, default=700)
    args = parser.parse_args()
    images = -(-args.megabytes * 10**6 // (4 * int(np.prod(IMAGE))))
    stored = write(str(args.folder / "x.zarr"), images)
    # Workers that outgrow their memory are restarted, and after three times the run fails.
    dask.config.set({"distributed.comm.compression": None})
    limits = {"memory_limit": args.limit * 10**6, "threads_per_worker": 1}
    with (
        LocalCluster(n_workers=2, processes=True, dashboard_address=None, **limits) as cluster,
        Client(cluster) as client,
    ):
        y = adapter.predict(network(), da.from_zarr(str(args.folder / "x.zarr")))
        whole = zarr.create_array(
            str(args.folder / "y.zarr"), shape=y.shape, dtype=y.dtype, chunks=y.chunksize
        )
        da.store(y, whole, lock=False)
        peaks = list(client.run(peak_bytes).values())
    model = network()
    same = all(
        np.array_equal(whole[i : i + 1], model.predict(stored[i : i + 1])) for i in range(images)
    )
    print(json.dumps({"data": stored.nbytes, "peaks": peaks, "same": same}))


if __name__ == "__main__":
    main()
