"""Convolutional networks as scikit-learn estimators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import log_softmax

from fastconv import nn
from fastconv._extras import host
from fastconv.nn.checks import Array, quiet

host("sklearn", "sklearn")

from sklearn.base import ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils import assert_all_finite, check_array, column_or_1d  # noqa: E402
from sklearn.utils.class_weight import compute_sample_weight  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402

from fastconv.adapters.sklearn.estimator import CNN, Network  # noqa: E402

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
        one line, with a warning, if their number is no square. Not needed where X has 3 or 4 axes.
    learning_rate_init : float
        Adam's step size.
    alpha : float
        Weight decay.
    batch_size : int or "auto"
        "auto" is 200, or all images where there are fewer.
    max_iter : int
        Epochs at most.
    tol : float
        What counts as an improvement of the loss.
    n_iter_no_change : int
        Epochs without improvement after which training stops; ``inf`` never stops it.
    early_stopping : bool
        Hold images out, stop by their loss, and keep the best weights.
    validation_fraction : float
        Share that is held out.
    random_state : int, RandomState instance or None
        Decides weights, held-out images and order: an int gives the same network every time.
    verbose : bool
        Print a line an epoch.
    warm_start : bool
        Whether `fit` goes on with the network that there is, on images and classes as before.
    data_format : {"channels_last", "channels_first"}
        With "channels_first" X is (m, C, H, W), or rows in that order, and `image_shape` (C, H, W).
    class_weight : dict, "balanced" or None
        How much images of each class count; "balanced": all classes the same together.

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

    def __init__(
        self,
        filters: tuple[int, ...] | int = (16, 32),
        hidden: tuple[int, ...] | int = (64,),
        *,
        network: Network | None = None,
        image_shape: tuple[int, ...] | None = None,
        learning_rate_init: float = 3e-3,
        alpha: float = 1e-4,
        batch_size: int | str = 32,
        max_iter: int = 50,
        tol: float = 1e-4,
        n_iter_no_change: float = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        verbose: bool = False,
        warm_start: bool = False,
        data_format: str = "channels_last",
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            filters,
            hidden,
            network=network,
            image_shape=image_shape,
            learning_rate_init=learning_rate_init,
            alpha=alpha,
            batch_size=batch_size,
            max_iter=max_iter,
            tol=tol,
            n_iter_no_change=n_iter_no_change,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            random_state=random_state,
            verbose=verbose,
            warm_start=warm_start,
            data_format=data_format,
        )
        self.class_weight = class_weight

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Train for one epoch, going on from the last call.

        Parameters
        ----------
        X, y
            As for :meth:`fit`.
        classes : array, optional
            All classes that there will be; needed in the first call unless `y` has them all.
        sample_weight : array (m,), optional
            As for :meth:`fit`.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, classes, sample_weight)

    def decision_function(self, X: Any) -> Array:
        """The network's outputs, of which softmax makes probabilities.

        Returns
        -------
        array (m, classes), or (m,) where there are two
            How far the second class is ahead.
        """
        z = self._forward(X)
        if z.shape[1] > 2:
            return z
        return z[:, -1] - z[:, 0] if z.shape[1] == 2 else z[:, 0]

    @quiet
    def predict_log_proba(self, X: Any) -> Array:
        """Logarithm of the probability of each class: array (m, classes)."""
        found: Array = log_softmax(self._forward(X), axis=1)
        return found

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class: array (m, classes)."""
        return nn.SoftmaxCrossEntropy().predict(self._forward(X))

    def predict(self, X: Any) -> Array:
        """The most probable class of each image: array (m,)."""
        z = self._forward(X)
        found: Array = self.classes_[z.argmax(axis=1)]
        return found

    def _weights(self, y: Any, sample_weight: Any, balanced: bool) -> Any:
        if self.class_weight is None:
            return sample_weight
        if not balanced and isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight: {self.class_weight!r} needs all images, which partial_fit does not "
                "see; give a dict"
            )
        weights = compute_sample_weight(self.class_weight, self.classes_[y])
        return weights if sample_weight is None else weights * sample_weight

    def _targets(self, y: Any, classes: Any, first: bool) -> Array:
        y = column_or_1d(y, warn=True)
        if y.dtype == object and all(isinstance(item, (int, np.integer)) for item in y):
            y = np.array(y.tolist())  # a Series of objects that are integers
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

    Parameters and attributes are those of :class:`CNNClassifier`, but for ``class_weight`` and
    ``classes_``. It
    minimises the mean squared error. Scale the targets, too, for example with
    ``TransformedTargetRegressor``.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 5, 5))
    >>> model = CNNRegressor(max_iter=5, random_state=0).fit(X, X.mean(axis=(1, 2)))
    >>> model.predict(X[:3]).shape
    (3,)
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train for one epoch, going on from the last call; arguments as for :meth:`fit`."""
        return self._partial_fit(X, y, None, sample_weight)

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
