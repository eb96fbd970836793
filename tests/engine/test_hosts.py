"""The code for other hosts: smaller ones run here, others are at least translated."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys

import pytest
from llvmlite import binding, ir

from fastconv.engine.emit.pool import (
    ARGMAX,
    FILL,
    MAX,
    MEAN,
    PLACE,
    SPREAD,
    ErrorOperands,
    PoolOperands,
    PoolTile,
    emit_errors,
    emit_reduce,
    emit_scatter,
)
from fastconv.engine.emit.product import Operands, TileShape, emit_product
from fastconv.engine.emit.sums import emit_mask, emit_plane_sums
from fastconv.engine.tables.tiles import (
    DOT,
    ELEMENTWISE,
    OUTER,
    PAIR,
    PAIR_ROWS,
    TILES,
    TWIN,
    isa_of,
)

HERE = os.path.dirname(__file__)

# The smallest x86-64 host, one with 32-byte vectors but without fused multiply-add, and AVX2.
SMALLER = {
    "nehalem": ("generic", "+cx16,+popcnt,+sse3,+sse4.1,+sse4.2,+ssse3"),
    "sandybridge": ("generic", "+avx,+cx16,+popcnt,+sse3,+sse4.1,+sse4.2,+ssse3,+xsave"),
    "haswell": ("avx2", "+avx,+avx2,+bmi,+bmi2,+cx16,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse3,"
                "+sse4.1,+sse4.2,+ssse3,+xsave"),
}  # fmt: skip

CHECKS = """
import sys
sys.path[:0] = {here!r}, {above!r}  # test_engine, strategies
import test_engine as t
from fastconv.engine.tables.tiles import cpu_isa
assert cpu_isa() == {isa!r}, cpu_isa()
for seed in range(16):
    t.test_random_geometries(seed)
for channels in (1, 3, 5, 8, 17, 33):
    t.test_channel_tails(channels)
t.test_few_channels(2, t.F4)
t.test_pooling_channel_tails(6, t.F4)
import fastconv
import numpy as np
from fastconv import reference
rng = np.random.default_rng(0)
for width in (2, 5, 9, 15, 19, 34):
    for dtype in ("float16", "float32"):
        x = rng.integers(-9, 10, (2, 3, 7, width)).astype(dtype)
        first = dict(data_format="channels_first")
        for found, right in zip(*(f.max_pool(x, 2, return_argmax=True, **first)
                                  for f in (fastconv, reference)), strict=True):
            assert found.tobytes() == right.tobytes()
        dx, right = (f.max_pool_backward(f.avg_pool(x, 2, **first), right, x.shape, 2, **first)
                     for f in (fastconv, reference))
        assert dx.tobytes() == right.tobytes()
        cols, right = (f.im2col(x, 2, padding=1, **first) for f in (fastconv, reference))
        assert cols.tobytes() == right.tobytes()
for dtype in ("float16", "float32", "float64"):
    dy, y = rng.integers(-9, 10, (2, 2, 5, 7, 19)).astype(dtype)
    right = np.where(y > 0, dy, np.zeros((), dtype))
    assert fastconv.relu_backward(dy, y).tobytes() == right.tobytes()
    for a in (dy, np.ascontiguousarray(np.moveaxis(dy, -1, 1)).transpose(0, 2, 3, 1)):
        db = fastconv.conv_backward(a, a, np.zeros((1, 1, 19, 19), dtype), need=("b",)).db
        assert (db == dy.sum((0, 1, 2), "f8")).all()
from fastconv.engine.entries import FINISHES, finish_address
from fastconv.engine.tables.tiles import cpu_lanes
single = np.dtype("float32")
for name, (_, works) in FINISHES.items():
    lanes = cpu_lanes(single)
    assert works(finish_address(name, lanes, single), lanes, single), name
from fastconv.selfcheck.deep.numbers import check_numbers
for score in check_numbers(fastconv, 0, 6, lambda done, total: None):
    assert score.failures == 0, score.first_failure
    assert score.cases > 3
print("ok")
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 hosts")
@pytest.mark.parametrize("name", SMALLER)
def test_smaller_hosts_compute_the_same_integers(name, tmp_path):
    isa, features = SMALLER[name]
    environment = dict(
        os.environ,
        NUMBA_CPU_NAME=name,
        NUMBA_CPU_FEATURES=features,
        FASTCONV_CACHE_DIR=str(tmp_path),
    )
    code = CHECKS.format(here=HERE, above=os.path.dirname(HERE), isa=isa)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["ok"]


def module_of(tile: TileShape) -> str:
    """LLVM IR of a function that is one product."""
    module = ir.Module("product")
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word] * 12), "product")
    builder = ir.IRBuilder(function.append_basic_block())
    emit_product(builder, tile, Operands(*function.args))
    builder.ret_void()
    return str(module)


def pooling_module_of(tile: PoolTile) -> str:
    """LLVM IR of a function that is one tile of a pooling, or of a gradient."""
    module = ir.Module("pooling")
    word = ir.IntType(64)
    operands, emit = ErrorOperands, emit_errors
    if tile.kind in (MAX, ARGMAX, MEAN):
        operands, emit = PoolOperands, emit_reduce
    arguments = [word] * (len(dataclasses.fields(operands)) - 1) + [tile.element]
    function = ir.Function(module, ir.FunctionType(word, arguments), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(emit(builder, tile, operands(*function.args)))
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word] * 5), "scatter")
    builder = ir.IRBuilder(function.append_basic_block())
    emit_scatter(builder, tile.element, *function.args)
    builder.ret_void()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word] * 4), "plane_sums")
    builder = ir.IRBuilder(function.append_basic_block())
    emit_plane_sums(builder, tile.element, 4, *function.args)
    builder.ret_void()
    for element in (tile.element, ir.IntType(16)):
        name = module.get_unique_name("mask")
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word] * 3), name)
        builder = ir.IRBuilder(function.append_basic_block())
        emit_mask(builder, element, 2 * tile.lanes, *function.args)
        builder.ret_void()
    return str(module)


TARGETS = {
    "avx512": ("x86_64-unknown-linux-gnu", "skylake-avx512", "zmm"),
    "avx2": ("x86_64-unknown-linux-gnu", "haswell", "ymm"),
    "generic": ("x86_64-unknown-linux-gnu", "x86-64", "xmm"),
    "neon": ("aarch64-unknown-linux-gnu", "cortex-a72", "fmla"),
}


@pytest.mark.parametrize("isa", TARGETS)
@pytest.mark.parametrize("element", [ir.FloatType(), ir.DoubleType()], ids=["f4", "f8"])
def test_every_tile_translates_for_every_host(isa, element):
    triple, cpu, word = TARGETS[isa]
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    nbytes, dense, depthwise = TILES[isa]
    lanes = nbytes // (4 if isinstance(element, ir.FloatType) else 8)
    tiles = [TileShape(rows, vectors, lanes, element, OUTER) for rows, vectors, _ in dense]
    tiles += [TileShape(*shape, lanes, element, ELEMENTWISE) for shape in depthwise]
    tiles += [TileShape(4, 2, lanes, element, kind) for kind in (DOT, PAIR)]
    tiles += [TileShape(2 * PAIR_ROWS[isa], 1, lanes, element, TWIN)]
    texts = [(module_of(tile), word) for tile in tiles]
    vectors = f".{lanes}{'s' if isinstance(element, ir.FloatType) else 'd'}"
    for kind in (MAX, ARGMAX, MEAN, SPREAD, FILL, PLACE):
        single = isinstance(element, ir.FloatType)
        for spacing in {MAX: (0, 1, 2), ARGMAX: (0, 1, 2), MEAN: (0, 1, 2)}.get(kind, (0,)):
            tile = PoolTile(lanes, element, kind, spacing)
            texts.append((pooling_module_of(tile), vectors if isa == "neon" else word))
        if kind in (FILL, PLACE):
            pairs = PoolTile(lanes, element, kind, 2, half=single and isa != "generic")
            texts.append((pooling_module_of(pairs), "ret"))
    for text, expected in texts:
        module = binding.parse_assembly(text)
        module.triple = triple
        module.verify()
        assert expected in target.emit_assembly(module)


@pytest.mark.parametrize("isa", TARGETS)
def test_accumulators_and_addresses_fit_the_registers(isa):
    nbytes, dense, depthwise = TILES[isa]
    registers = 32 if isa in ("avx512", "neon") else 16
    for mr, nv, speed in dense:
        assert 8 <= mr * nv <= registers - nv - 1 + (nv > 2)
        assert 0 < speed <= 1
    assert all(rows * vectors <= registers - 2 for rows, vectors in depthwise)
    assert nbytes in (16, 32, 64)


def test_isa_is_chosen_by_features():
    assert isa_of("+avx512f,+avx,+fma") == "avx512"
    assert isa_of("-avx512f,+avx,+fma") == "avx2"
    assert isa_of("+avx") == "generic"
    assert isa_of("") == "generic"
