"""Every layer of `fastconv.nn`, for tests of ONNX files."""

import numpy as np

from fastconv import nn


def image(*shape, m=3, seed=0):
    return np.random.default_rng(seed).normal(size=(m, *shape)).astype(np.float32)


def settled(model):
    """The model with parameters and running statistics that are not those of the start."""
    rng = np.random.default_rng(1)
    arrays = [p.value for p in model.parameters()] + list(model.named_buffers().values())
    for array in arrays:
        array[...] = rng.uniform(0.1, 0.5, array.shape) * rng.choice([-1, 1])
        if array is not arrays[0]:
            array[...] = np.abs(array)
    return model


CONV = {"rng": 0}
LAYERS = {
    "conv": (nn.Conv(3, 4, 3, padding=((1, 2), (0, 1)), stride=(2, 1), **CONV), (9, 8, 3)),
    "conv_same": (nn.Conv(3, 4, (4, 3), padding="same", dilation=2, **CONV), (9, 8, 3)),
    "conv_same_stride": (nn.Conv(3, 4, 3, padding="same", stride=2, **CONV), (9, 8, 3)),
    "conv_full_groups_relu": (
        nn.Conv(4, 6, 3, padding="full", groups=2, bias=False, activation="relu", **CONV),
        (5, 6, 4),
    ),
    "conv_reflect": (nn.Conv(3, 4, 3, padding=1, padding_mode="reflect", **CONV), (9, 8, 3)),
    "conv_wrap": (
        nn.Conv(3, 4, 3, padding=((2, 1), (0, 2)), padding_mode="wrap", **CONV),
        (5, 6, 3),
    ),
    "conv_symmetric": (
        nn.Conv(3, 4, 4, padding="same", padding_mode="symmetric", **CONV),
        (5, 6, 3),
    ),
    "conv_1d": (nn.Conv(3, 4, (3,), padding=1, **CONV), (9, 3)),
    "conv_3d": (nn.Conv(2, 3, (2, 3, 1), **CONV), (5, 6, 4, 2)),
    "transpose": (
        nn.ConvTranspose(3, 4, 3, stride=2, padding=1, output_padding=1, **CONV),
        (5, 4, 3),
    ),
    "transpose_same": (nn.ConvTranspose(3, 4, 3, stride=2, padding="same", **CONV), (5, 4, 3)),
    "transpose_gaps": (
        nn.ConvTranspose(4, 2, 2, stride=3, padding="same", groups=2, activation="relu", **CONV),
        (5, 4, 4),
    ),
    "transpose_full": (nn.ConvTranspose(2, 2, 2, dilation=2, padding="full", **CONV), (6, 7, 2)),
    "max_pool": (nn.MaxPool(3, stride=2, padding=1, ceil_mode=True), (8, 7, 2)),
    "max_pool_same": (nn.MaxPool((2, 3), padding="same"), (8, 7, 2)),
    "max_pool_1d": (nn.MaxPool(2), (8, 2)),
    "avg_pool": (nn.AvgPool(2), (8, 7, 2)),
    "avg_pool_ceil": (nn.AvgPool(3, stride=2, padding=1, ceil_mode=True), (8, 7, 2)),
    "avg_pool_pad": (nn.AvgPool(3, stride=1, padding=1, count_include_pad=True), (8, 7, 2)),
    "avg_pool_same": (nn.AvgPool(3, stride=2, padding="same"), (8, 7, 2)),
    "global_avg_pool": (nn.GlobalAvgPool(), (8, 7, 2)),
    "batch_norm": (nn.BatchNorm(3, epsilon=1e-2), (5, 4, 3)),
    "batch_norm_rows": (nn.BatchNorm(3), (3,)),
    "dense": (nn.Dense(5, 4, bias=False, rng=0), (5,)),
    "flatten": (nn.Flatten(), (3, 4, 2)),
    "flatten_rows": (nn.Flatten(), (7,)),
    "dropout": (nn.Dropout(0.5), (3, 4, 2)),
    "relu": (nn.ReLU(), (3, 4, 2)),
    "sigmoid": (nn.Sigmoid(), (7,)),
    "tanh": (nn.Tanh(), (3, 4, 2)),
    "residual": (nn.Residual(nn.Conv(2, 2, 3, padding=1, **CONV)), (5, 4, 2)),
    "residual_shortcut": (
        nn.Residual(
            nn.Sequential(nn.Conv(2, 4, 3, stride=2, padding=1, **CONV), nn.Tanh()),
            nn.Conv(2, 4, 1, stride=2, **CONV),
        ),
        (5, 4, 2),
    ),
    "leaky_relu": (nn.LeakyReLU(0.3), (3, 4, 2)),
    "elu": (nn.ELU(0.7), (3, 4, 2)),
    "gelu": (nn.GELU(), (3, 4, 2)),
    "silu": (nn.SiLU(), (7,)),
    "softplus": (nn.Softplus(), (3, 4, 2)),
    "hardswish": (nn.Hardswish(), (3, 4, 2)),
    "identity": (nn.Identity(), (3, 4, 2)),
    "spatial_dropout": (nn.SpatialDropout(0.5), (3, 4, 2)),
    "concat": (
        nn.Concat(nn.Identity(), nn.Sequential(nn.Conv(2, 3, 3, padding=1, **CONV), nn.ReLU())),
        (5, 4, 2),
    ),
    "concat_rows": (nn.Concat(nn.Dense(5, 2, rng=0), nn.Identity()), (5,)),
    "separable": (nn.SeparableConv(3, 4, 3, multiplier=2, stride=2, rng=0), (7, 6, 3)),
    "global_max_pool": (nn.GlobalMaxPool(), (8, 7, 2)),
    "adaptive_mean": (nn.AdaptiveAvgPool((2, 1)), (6, 7, 2)),
    "adaptive_mean_overlap": (nn.AdaptiveAvgPool((4, 3)), (6, 7, 2)),
    "adaptive_max": (nn.AdaptiveMaxPool(2), (6, 4, 2)),
    "adaptive_max_overlap": (nn.AdaptiveMaxPool((1, 5)), (6, 7, 2)),
    "adaptive_behind_conv": (
        nn.Sequential(nn.Conv(2, 3, 3, stride=2, **CONV), nn.AdaptiveAvgPool(2)),
        (9, 12, 2),
    ),
    "adaptive_behind_group_norm": (
        nn.Sequential(nn.GroupNorm(2, 4), nn.AdaptiveMaxPool((4, 3))),
        (6, 7, 4),
    ),
    "nearest": (nn.Upsample((2, 3)), (3, 4, 2)),
    "bilinear": (nn.Upsample((2, 3), mode="bilinear"), (3, 4, 2)),
    "bilinear_1d": (nn.Upsample(2, mode="bilinear"), (5, 2)),
    "pixel_shuffle": (nn.PixelShuffle(2), (3, 2, 8)),
    "pad": (nn.Pad(((1, 2), (0, 3))), (4, 5, 2)),
    "pad_reflect": (nn.Pad((1, 2), "reflect"), (4, 5, 2)),
    "pad_edge": (nn.Pad(2, "edge"), (4, 5, 2)),
    "pad_symmetric": (nn.Pad(((1, 3), (2, 0)), "symmetric"), (4, 5, 2)),
    "pad_wrap": (nn.Pad(((0, 3), (2, 1)), "wrap"), (4, 5, 2)),
    "layer_norm": (nn.LayerNorm(3, epsilon=1e-2), (5, 4, 3)),
    "layer_norm_rows": (nn.LayerNorm(3), (3,)),
    "group_norm": (nn.GroupNorm(2, 4, epsilon=1e-2), (5, 4, 4)),
    "group_norm_rows": (nn.GroupNorm(2, 6), (6,)),
    "instance_norm": (nn.InstanceNorm(3), (5, 4, 3)),
    "residual_rows": (nn.Residual(nn.Dense(6, 6, rng=0)), (6,)),
}
