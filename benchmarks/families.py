"""Small networks of the families that people know, and the same in PyTorch, in float64.

``python benchmarks/families.py`` compares each with PyTorch: the outputs, all gradients, and the
weights after ten steps. PyTorch's network is made from ours, layer by layer, with the same weights;
nothing of it is needed to make the networks.

    python benchmarks/families.py            # all
    python benchmarks/families.py unet vgg
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv import nn

Make = Callable[..., nn.Sequential]
TOLERANCE = 1e-9  # of outputs, gradients and weights, relative to the largest


def _conv(channels: int, filters: int, window: int = 3, **options: Any) -> nn.Conv:
    return nn.Conv(channels, filters, window, padding="same", **options)


def vgg(**made: Any) -> nn.Sequential:
    """Simonyan and Zisserman 2015: 3x3 convolutions, pools, dense layers."""
    return nn.Sequential(
        _conv(1, 8, activation="relu", **made), _conv(8, 8, activation="relu", **made),
        nn.MaxPool(2),
        _conv(8, 16, activation="relu", **made), _conv(16, 16, activation="relu", **made),
        nn.MaxPool(2),
        nn.Flatten(), nn.Dense(64, 32, **made), nn.ReLU(), nn.Dense(32, 10, **made),
    )  # fmt: skip


def resnet(**made: Any) -> nn.Sequential:
    """He et al. 2016: residual blocks, of which one makes the image smaller."""
    dtype = {"dtype": made.get("dtype", np.float32)}

    def body(channels: int, filters: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv(channels, filters, 3, stride=stride, padding=1, bias=False, **made),
            nn.BatchNorm(filters, **dtype), nn.ReLU(),
            _conv(filters, filters, bias=False, **made), nn.BatchNorm(filters, **dtype),
        )  # fmt: skip

    smaller = nn.Conv(8, 16, 1, stride=2, **made)
    return nn.Sequential(
        _conv(1, 8, bias=False, **made), nn.BatchNorm(8, **dtype), nn.ReLU(),
        nn.Residual(body(8, 8, 1)), nn.ReLU(),
        nn.Residual(body(8, 16, 2), smaller), nn.ReLU(),
        nn.GlobalAvgPool(), nn.Dense(16, 10, **made),
    )  # fmt: skip


def densenet(**made: Any) -> nn.Sequential:
    """Huang et al. 2017: every layer sees the outputs of all before it."""
    dtype = {"dtype": made.get("dtype", np.float32)}

    def dense(channels: int) -> nn.Concat:
        body = nn.Sequential(nn.BatchNorm(channels, **dtype), nn.ReLU(), _conv(channels, 6, **made))
        return nn.Concat(nn.Identity(), body)

    return nn.Sequential(
        _conv(1, 8, **made), dense(8), dense(14), dense(20),
        nn.Conv(26, 12, 1, **made), nn.AvgPool(2), dense(12), dense(18),
        nn.BatchNorm(24, **dtype), nn.ReLU(), nn.GlobalAvgPool(), nn.Dense(24, 10, **made),
    )  # fmt: skip


def inception(**made: Any) -> nn.Sequential:
    """Szegedy et al. 2015: windows of several sizes side by side."""

    def cell(channels: int) -> nn.Concat:
        relu = {"activation": "relu", **made}
        return nn.Concat(
            nn.Conv(channels, 4, 1, **relu),
            nn.Sequential(nn.Conv(channels, 4, 1, **relu), _conv(4, 6, **relu)),
            nn.Sequential(nn.Conv(channels, 2, 1, **relu), _conv(2, 4, 5, **relu)),
            nn.Sequential(nn.MaxPool(3, stride=1, padding=1), nn.Conv(channels, 4, 1, **relu)),
        )

    return nn.Sequential(
        _conv(1, 8, activation="relu", **made), cell(8), nn.MaxPool(2), cell(18),
        nn.SpatialDropout(0.0), nn.AdaptiveAvgPool(3), nn.Flatten(), nn.Dense(162, 10, **made),
    )  # fmt: skip


def mobilenet(**made: Any) -> nn.Sequential:
    """Howard et al. 2019: depthwise separable convolutions, hard swish."""
    dtype = {"dtype": made.get("dtype", np.float32)}
    layers: list[nn.Layer] = [_conv(1, 12, **made), nn.Hardswish()]
    for channels, filters, stride in ((12, 16, 1), (16, 24, 2), (24, 24, 1)):
        layers += [
            nn.SeparableConv(channels, filters, 3, stride=stride, padding=1, bias=False, **made),
            nn.BatchNorm(filters, **dtype), nn.Hardswish(),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.GlobalAvgPool(), nn.Dense(24, 10, **made))


def unet(**made: Any) -> nn.Sequential:
    """Ronneberger et al. 2015: down, up again, and the way around at each size."""
    dtype = {"dtype": made.get("dtype", np.float32)}

    def block(channels: int, filters: int) -> nn.Sequential:
        return nn.Sequential(
            _conv(channels, filters, **made), nn.GroupNorm(2, filters, **dtype), nn.SiLU()
        )

    bottom = nn.Sequential(
        nn.MaxPool(2), block(16, 24), nn.ConvTranspose(24, 16, 2, stride=2, **made)
    )
    inner = nn.Sequential(
        nn.MaxPool(2), block(8, 16), nn.Concat(nn.Identity(), bottom), block(32, 16),
        nn.Upsample(2, mode="bilinear"),
    )  # fmt: skip
    return nn.Sequential(
        block(1, 8), nn.Concat(nn.Identity(), inner), block(24, 12), nn.Conv(12, 2, 1, **made)
    )


NETWORKS: dict[str, Make] = {
    "vgg": vgg, "resnet": resnet, "densenet": densenet, "inception": inception,
    "mobilenet": mobilenet, "unet": unet,
}  # fmt: skip


# The same in PyTorch ----------------------------------------------------------------------------


class Torch:
    """A network of ours, as a function of PyTorch's tensors, with copies of the weights."""

    def __init__(self, model: nn.Sequential) -> None:
        import torch

        self.torch, self.model = torch, model
        self.weights = {
            path: torch.tensor(p.value, requires_grad=True)
            for path, p in model.named_parameters().items()
        }

    def __call__(self, x: np.ndarray) -> Any:
        """The outputs, channels last."""
        images = self.torch.tensor(x).movedim(-1, 1)
        return self.layer(self.model, images, "").movedim(1, -1)

    def layer(self, layer: nn.Layer, x: Any, path: str) -> Any:
        """What PyTorch makes of a layer's input, channels first."""
        name = next(k.__name__ for k in type(layer).__mro__ if f"_{k.__name__}" in dir(self))
        return getattr(self, f"_{name}")(layer, x, path)

    def of(self, path: str, name: str) -> Any:
        return self.weights.get(f"{path}.{name}".lstrip("."))

    def child(self, layer: nn.Layer, key: str, x: Any, path: str) -> Any:
        return self.layer(layer.children()[key], x, f"{path}.{key}".lstrip("."))

    def _Sequential(self, layer: Any, x: Any, path: str) -> Any:
        for key in layer.children():
            x = self.child(layer, key, x, path)
        return x

    def _Concat(self, layer: Any, x: Any, path: str) -> Any:
        return self.torch.cat([self.child(layer, key, x, path) for key in layer.children()], 1)

    def _Residual(self, layer: Any, x: Any, path: str) -> Any:
        side = x if layer.shortcut is None else self.child(layer, "shortcut", x, path)
        return self.child(layer, "body", x, path) + side

    def _Conv(self, layer: Any, x: Any, path: str) -> Any:
        w = self.of(path, "w").permute(3, 2, 0, 1)
        options = {"stride": layer.settings["stride"], "padding": layer.settings["padding"]}
        y = self.torch.conv2d(x, w, self.of(path, "b"), groups=layer.groups, **options)
        return y.relu() if layer.activation else y

    def _ConvTranspose(self, layer: Any, x: Any, path: str) -> Any:
        w = self.of(path, "w").permute(3, 2, 0, 1)
        stride = layer.settings["stride"]
        return self.torch.conv_transpose2d(x, w, self.of(path, "b"), stride=stride)

    def _Dense(self, layer: Any, x: Any, path: str) -> Any:
        return x @ self.of(path, "w") + self.of(path, "b")

    def _BatchNorm(self, layer: Any, x: Any, path: str) -> Any:
        scale, shift = self.of(path, "scale"), self.of(path, "shift")
        function = self.torch.nn.functional.batch_norm
        return function(x, None, None, scale, shift, training=True, eps=layer.epsilon)

    def _GroupNorm(self, layer: Any, x: Any, path: str) -> Any:
        scale, shift = self.of(path, "scale"), self.of(path, "shift")
        return self.torch.nn.functional.group_norm(x, layer.groups, scale, shift, layer.epsilon)

    def _Flatten(self, layer: Any, x: Any, path: str) -> Any:
        return x.movedim(1, -1).flatten(1)

    def _Upsample(self, layer: Any, x: Any, path: str) -> Any:
        return self.torch.nn.functional.interpolate(x, scale_factor=layer.factor, mode=layer.mode)

    def _MaxPool(self, layer: Any, x: Any, path: str) -> Any:
        options = {"stride": layer.settings["stride"], "padding": layer.settings["padding"]}
        return self.torch.nn.functional.max_pool2d(x, layer.window, **options)

    def _AvgPool(self, layer: Any, x: Any, path: str) -> Any:
        return self.torch.nn.functional.avg_pool2d(x, layer.window)

    def _AdaptiveAvgPool(self, layer: Any, x: Any, path: str) -> Any:
        return self.torch.nn.functional.adaptive_avg_pool2d(x, layer.size)

    def _GlobalAvgPool(self, layer: Any, x: Any, path: str) -> Any:
        return x.mean((2, 3))

    def _ReLU(self, layer: Any, x: Any, path: str) -> Any:
        return x.relu()

    def _SiLU(self, layer: Any, x: Any, path: str) -> Any:
        return self.torch.nn.functional.silu(x)

    def _Hardswish(self, layer: Any, x: Any, path: str) -> Any:
        return self.torch.nn.functional.hardswish(x)

    def _Identity(self, layer: Any, x: Any, path: str) -> Any:
        return x

    def _Dropout(self, layer: Any, x: Any, path: str) -> Any:
        return x


def data(name: str, m: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that mean nothing."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(m, 8, 8, 1))
    return x, rng.integers(0, 2, (m, 8, 8)) if name == "unet" else rng.integers(0, 10, m)


def difference(name: str, steps: int = 10, lr: float = 0.05) -> float:
    """Largest difference of outputs, gradients and weights over so many steps, relative."""
    model = NETWORKS[name](rng=np.random.default_rng(0), dtype=np.float64)
    twin = Torch(model)
    torch, loss = twin.torch, nn.SoftmaxCrossEntropy()
    ours = nn.SGD(model.parameters(), lr=lr, momentum=0.9)
    theirs = torch.optim.SGD(list(twin.weights.values()), lr=lr, momentum=0.9)
    x, y = data(name)
    worst = 0.0
    for _ in range(steps):
        outputs = twin(x)
        theirs.zero_grad()
        flat = outputs.reshape(-1, outputs.shape[-1])
        torch.nn.functional.cross_entropy(flat, torch.tensor(y.reshape(-1))).backward()
        theirs.step()
        _, z = nn.train_step(model, loss, ours, x, y)
        pairs = [(z, outputs.detach().numpy())]
        for path, p in model.named_parameters().items():
            weight = twin.weights[path]
            pairs += [(p.grad, weight.grad.numpy()), (p.value, weight.detach().numpy())]
        worst = max(worst, *(_apart(a, b) for a, b in pairs))
    return worst


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-3))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 1 if a network differs."""
    names = list(sys.argv[1:] if argv is None else argv) or list(NETWORKS)
    if unknown := set(names) - set(NETWORKS):
        print(f"{', '.join(sorted(unknown))}: known are {', '.join(NETWORKS)}", file=sys.stderr)
        return 2
    found = dict(zip(names, map(difference, names), strict=True))
    for name, worst in found.items():
        print(f"{name:<10} largest relative difference {worst:.1e}")
    return int(max(found.values()) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
