"""Convolutional networks as scikit-learn estimators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.adapters._host import host
from fastconv.nn.base import Array

host("sklearn", "sklearn")

from sklearn.base import ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils import assert_all_finite, check_array, column_or_1d  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402

from fastconv.adapters._estimator import CNN  # noqa: E402

__all__ = ["CNNClassifier", "CNNRegressor"]


class CNNClassifier(ClassifierMixin, CNN):
    """A small convolutional network that tells classes of images apart.

    Each entry of `filters` is a 3x3 convolution with ReLU and a 2x2 maximum; each entry of `hidden`
    a dense layer with ReLU; then softmax. Adam minimises the cross-entropy. It computes in float32.
    Scale the pixels first, for example with ``MinMaxScaler``.

    Parameters
    ----------
    filters : tuple of int, or int
        Filters of each convolution; 8 means (8,).
    hidden : tuple of int, or int
        Units of each dense layer before the output.
    network : callable, optional
        ``network(input_shape, outputs, seed=seed)`` returns a `fastconv.nn.Sequential` instead,
        as `fastconv.examples.digits_cnn` does; it must have that many outputs.
    image_shape : (H, W) or (H, W, C), optional
        How the features of a row make an image. Without it they are a square of one channel, or
        one line if their number is no square. Not needed where X has 3 or 4 axes.
    learning_rate_init : float
        Adam's step size.
    alpha : float
        Weight decay.
    batch_size : int
    max_iter : int
        Epochs at most.
    tol : float
        What counts as an improvement of the loss.
    n_iter_no_change : int
        Epochs without improvement after which training stops.
    early_stopping : bool
        Hold images out, stop by their loss, and keep the best weights.
    validation_fraction : float
        Share that is held out.
    random_state : int, RandomState instance or None
        Decides weights, held-out images and order: an int gives the same network every time.
    verbose : bool
        Print a line an epoch.

    Attributes
    ----------
    classes_ : array
    n_features_in_, n_iter_ : int
    image_shape_ : (H, W, C)
    model_ : fastconv.nn.Sequential
    history_ : fastconv.nn.History
        A row for each epoch: ``history_["loss"]``, ``["accuracy"]``, ``["val_loss"]`` and more.
    loss_ : float
        The last epoch's.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = CNNClassifier(max_iter=3, random_state=0).fit(X[:900] / 16, y[:900])
    >>> bool(model.score(X[900:] / 16, y[900:]) > 0.8)
    True
    """

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:
        """Train for one epoch, going on from the last call.

        Parameters
        ----------
        X, y
            As for :meth:`fit`.
        classes : array, optional
            All classes that there will be; needed in the first call unless `y` has them all.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, classes)

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class: array (m, classes)."""
        return nn.SoftmaxCrossEntropy().predict(self._forward(X))

    def predict(self, X: Any) -> Array:
        """The most probable class of each image: array (m,)."""
        z = self._forward(X)
        found: Array = self.classes_[z.argmax(axis=1)]
        return found

    def _targets(self, y: Any, classes: Any, first: bool) -> Array:
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if first:
            self.classes_ = np.unique(y if classes is None else classes)
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(f"classes={classes!r} is not what it was before, {self.classes_}")
        labels = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if not np.array_equal(self.classes_[labels], y):
            raise ValueError(f"y holds labels that are not in classes: {np.unique(y)}")
        return labels

    def _outputs(self) -> int:
        return len(self.classes_)

    def _loss(self) -> nn.Loss:
        return nn.SoftmaxCrossEntropy()


class CNNRegressor(RegressorMixin, CNN):
    """A small convolutional network that estimates numbers from images.

    Parameters and attributes are those of :class:`CNNClassifier`, but for ``classes_``. It
    minimises the mean squared error. Scale the targets, too, for example with
    ``TransformedTargetRegressor``.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 5, 5))
    >>> model = CNNRegressor(max_iter=5, random_state=0).fit(X, X.mean(axis=(1, 2)))
    >>> model.predict(X[:3]).shape
    (3,)
    """

    def partial_fit(self, X: Any, y: Any) -> Any:
        """Train for one epoch, going on from the last call; arguments as for :meth:`fit`."""
        return self._partial_fit(X, y, None)

    def predict(self, X: Any) -> Array:
        """The estimate for each image: (m,), or (m, outputs) as `y` was."""
        z = self._forward(X)
        return z.reshape(len(z)) if self._flat else z

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _targets(self, y: Any, classes: Any, first: bool) -> Array:
        y = check_array(y, ensure_2d=False, dtype=np.float32, input_name="y")
        rows = y.reshape(len(y), math.prod(y.shape[1:]))
        if first:
            self._flat, self.n_outputs_ = y.ndim == 1, rows.shape[1]
        elif rows.shape[1] != self.n_outputs_:
            raise ValueError(f"y has {rows.shape[1]} outputs, fitted were {self.n_outputs_}")
        return rows

    def _outputs(self) -> int:
        return int(self.n_outputs_)

    def _loss(self) -> nn.Loss:
        return nn.MeanSquaredError()
