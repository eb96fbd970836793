"""One image of 20,000 x 20,000 pixels, in chunks, through five layers: seconds, and memory at most.

The image, bytes in a zarr in chunks of 1,000 x 1,000, goes into another one in a process of its
own: by `fastconv.adapters.zarr.predict`, which is what ``fastconv predict --out`` does, or by
`fastconv.adapters.dask.predict`, in dask's threads. Told is what the process took beyond what it
had after a small image. Results are compared, bit for bit, with the network on cuts of the image.
It needs Linux, which tells a process's peak.

    python benchmarks/large_image.py                       # a minute; 2 GB of disk for a while
    python benchmarks/large_image.py --side 5000 --chunk 512
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.cli.output import print_table
from fastconv.cli.parser import positive_int

WAYS = ("zarr", "dask")
SCALE = 1 / 255
MARGIN, CUT = 16, 256  # pixels around a cut, more than a result sees; and of a cut


def network() -> nn.Sequential:
    """Five layers, at the full and at half the size."""
    return nn.Sequential(
        nn.Conv(1, 8, 3, padding="same", activation="relu", rng=0),
        nn.MaxPool(2),
        nn.Conv(8, 16, 3, padding="same", activation="relu", rng=1),
        nn.Upsample(2),
        nn.Conv(16, 1, 5, padding="same", rng=2),
    )


def write(path: Path, side: int, chunk: int) -> None:
    """An image of noise."""
    import zarr

    image = zarr.create_array(
        str(path), shape=(1, side, side, 1), dtype="u1", chunks=(1, chunk, chunk, 1)
    )
    rng = np.random.default_rng(0)
    for row in range(0, side, chunk):
        rows = min(chunk, side - row)
        image[:, row : row + rows] = rng.integers(0, 256, (1, rows, side, 1), np.uint8)


def predicted(way: str, source: Path, out: Path) -> None:
    """The network's outputs of the stored image."""
    import zarr

    if way == "zarr":
        from fastconv.adapters.zarr import predict

        predict(network(), zarr.open_array(str(source), mode="r"), out, scale=SCALE)
        return
    import dask.array as da

    from fastconv.adapters import dask as adapter

    y = adapter.predict(network(), da.from_zarr(str(source)), scale=SCALE)
    chunks = tuple(sizes[0] for sizes in y.chunks)
    stored = zarr.create_array(str(out), shape=y.shape, dtype=y.dtype, chunks=chunks)
    da.store(y, stored, lock=False)


def one_way(way: str, folder: Path) -> dict[str, Any]:
    """Seconds and bytes, in this process."""
    predicted(way, folder / "small.zarr", folder / f"small.{way}.zarr")
    before = peak_bytes()
    began = time.perf_counter()
    predicted(way, folder / "x.zarr", folder / f"y.{way}.zarr")
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "before": before, "peak": peak_bytes()}


def peak_bytes() -> int:
    """What the process took at most until now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def same_bits(way: str, folder: Path) -> bool:
    """Whether results are those of the network on cuts: at the corners, and across chunks."""
    import zarr

    x = zarr.open_array(str(folder / "x.zarr"), mode="r")
    y = zarr.open_array(str(folder / f"y.{way}.zarr"), mode="r")
    side, model = x.shape[1], network()
    chunk = x.chunks[1]
    for start in (0, max(0, chunk - CUT // 2), side - CUT):
        start -= start % 2  # where a window of the pooling begins
        low, high = max(0, start - MARGIN), min(side, start + CUT + MARGIN)
        image = np.asarray(x[:, low:high, low:high])
        whole = model.predict(image, scale=SCALE)
        inner = slice(start - low, start - low + CUT)
        if not np.array_equal(
            whole[:, inner, inner], y[:, start : start + CUT, start : start + CUT]
        ):
            return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if results are not the same bits, or memory is above `--megabytes`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=positive_int, default=20_000, help="pixels")
    parser.add_argument("--chunk", type=positive_int, default=1_000, help="pixels")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument(
        "--megabytes", type=positive_int, default=700, help="that a way may take (default 700)"
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(one_way(args.one[0], Path(args.one[1]))))
        return 0
    if args.side < 2 * CUT or args.side % 2:
        parser.error(f"--side: an even number, at least {2 * CUT}, is needed")
    rows, good = [], True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "x.zarr", args.side, args.chunk)
        write(folder / "small.zarr", 2 * CUT, CUT)
        for way in args.ways:
            command = [sys.executable, __file__, "--one", way, name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
            megabytes = (found["peak"] - found["before"]) / 1e6
            same = same_bits(way, folder)
            good &= same and megabytes <= args.megabytes
            speed = args.side**2 / found["seconds"] / 1e6
            rows.append(
                [way, f"{found['seconds']:.1f}", f"{speed:.1f}", f"{megabytes:.0f}",
                 "yes" if same else "NO"]
            )  # fmt: skip
    print_table(["way", "seconds", "Mpixel/s", "MB", "same bits"], rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
