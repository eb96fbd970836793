"""pytest plugin under which Keras's own tests run on fastconv, with JAX out of reach."""

import sys

import pytest


class NoJax:
    """Whether or not JAX is installed: importing it fails."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def without_jax():
    """Block JAX, then let fastconv serve Keras."""
    sys.meta_path.insert(0, NoJax())
    import fastconv.adapters.keras  # noqa: F401


# Keras registers these in its conftest, which its wheel leaves out.
MARKERS = {
    "requires_trainable_backend": "the NumPy backend does not train",
    "multi_device": "several accelerators",
}


def pytest_configure(config):
    without_jax()
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("requires_trainable_backend"):
            item.add_marker(pytest.mark.skip(reason=MARKERS["requires_trainable_backend"]))


def pytest_sessionfinish():
    assert "jax" not in sys.modules
