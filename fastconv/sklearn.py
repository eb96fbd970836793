"""Convolutional networks as scikit-learn estimators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.adapters._host import host
from fastconv.adapters._images import image_shape_of, small_cnn
from fastconv.nn.base import Array, positive_int

host("sklearn", "sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import (  # noqa: E402
    check_array,
    check_is_fitted,
    validate_data,
)

__all__ = ["CNNClassifier", "CNNRegressor"]

# (input_shape, outputs, seed=...) -> network, as `fastconv.examples.digits_cnn`
Network = Callable[..., nn.Sequential]


class _CNN(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share: images, network, training."""

    def __init__(
        self,
        filters: tuple[int, ...] = (16, 32),
        hidden: tuple[int, ...] = (64,),
        *,
        network: Network | None = None,
        image_shape: tuple[int, ...] | None = None,
        learning_rate_init: float = 3e-3,
        alpha: float = 1e-4,
        batch_size: int = 32,
        max_iter: int = 50,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.filters = filters
        self.hidden = hidden
        self.network = network
        self.image_shape = image_shape
        self.learning_rate_init = learning_rate_init
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    # What the two differ in ---------------------------------------------------------------------

    def _targets(self, y: Any, classes: Any, first: bool) -> Array:
        """`y` as the loss wants it; learns the classes when `first`."""
        raise NotImplementedError

    def _outputs(self) -> int:
        """Outputs of the network."""
        raise NotImplementedError

    def _loss(self) -> nn.Loss:
        raise NotImplementedError

    # Training -----------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> Any:
        """Train a new network.

        Parameters
        ----------
        X : array (m, features), (m, H, W) or (m, H, W, C)
        y : array (m,)
            For a regressor also (m, outputs).

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            Naming the argument.
        FloatingPointError
            If the loss is not finite any more.
        """
        X, y = self._start(X, y, None)
        validation = None
        stopping = nn.EarlyStopping(self.n_iter_no_change, "loss", self.tol, restore_best=False)
        if self.early_stopping:
            stopping = nn.EarlyStopping(self.n_iter_no_change, "val_loss", self.tol)
            X, x_held, y, y_held = train_test_split(
                X,
                y,
                test_size=self.validation_fraction,
                stratify=y if isinstance(self, ClassifierMixin) else None,
                random_state=self._draw_seed(),
            )
            validation = (x_held, y_held)
        return self._train(X, y, positive_int("max_iter", self.max_iter), validation, stopping)

    def _partial_fit(self, X: Any, y: Any, classes: Any) -> Any:
        if hasattr(self, "model_"):
            X = self._images(X)
            y = self._checked_length(X, self._targets(y, classes, first=False))
        else:
            X, y = self._start(X, y, classes)
        return self._train(X, y, 1, None, None)

    def _start(self, X: Any, y: Any, classes: Any) -> tuple[Array, Array]:
        """Check the data and make a network for them."""
        if y is None:
            raise ValueError(
                f"requires y to be passed, but the target y is None: {type(self).__name__}"
            )
        self._random_state = check_random_state(self.random_state)
        X = self._images(X, first=True)
        y = self._checked_length(X, self._targets(y, classes, first=True))
        seed = self._draw_seed()
        if self.network is None:
            self.model_ = small_cnn(X.shape[1:], self._outputs(), self.filters, self.hidden, seed)
        else:
            self.model_ = self.network(X.shape[1:], self._outputs(), seed=seed)
        self.optimizer_ = nn.Adam(
            self.model_.parameters(), lr=self.learning_rate_init, weight_decay=self.alpha
        )
        self.history_ = nn.History()
        return X, y

    def _train(self, X: Array, y: Array, epochs: int, validation: Any, stopping: Any) -> Any:
        history = nn.fit(
            self.model_.train(),
            self._loss(),
            self.optimizer_,
            X,
            y,
            epochs=epochs,
            batch_size=positive_int("batch_size", self.batch_size),
            validation=validation,
            early_stopping=stopping,
            seed=self._draw_seed(),
            callbacks=[_Report()] if self.verbose else [],
        )
        # In evaluation mode for good, so that several Python threads may predict at once.
        self.model_.eval()
        done = len(self.history_)
        self.history_.epochs += [{**row, "epoch": row["epoch"] + done} for row in history.epochs]
        self.n_iter_ = len(self.history_)
        self.loss_ = self.history_["loss"][-1]
        return self

    def _draw_seed(self) -> int:
        return int(self._random_state.randint(2**31 - 1))

    # Images -------------------------------------------------------------------------------------

    def _images(self, X: Any, first: bool = False) -> Array:
        """`X` as float32 images (m, H, W, C); learns their shape when `first`."""
        if getattr(X, "ndim", 2) > 2:
            X = check_array(X, allow_nd=True, dtype=np.float32, input_name="X")
            own_shape = (*X.shape[1:], 1) if X.ndim == 3 else X.shape[1:]
            X = X.reshape(len(X), math.prod(own_shape))
        else:
            own_shape = None
        X = validate_data(self, X, reset=first, dtype=np.float32, order="C")
        if first:
            self.image_shape_ = image_shape_of(X.shape[1], own_shape, self.image_shape)
        elif own_shape not in (None, self.image_shape_):
            raise ValueError(f"X has images of shape {own_shape}, fitted were {self.image_shape_}")
        images: Array = X.reshape(len(X), *self.image_shape_)
        return images

    @staticmethod
    def _checked_length(X: Array, y: Array) -> Array:
        if len(y) != len(X):
            raise ValueError(f"Found input variables with inconsistent numbers: {len(X)}, {len(y)}")
        return y

    def _forward(self, X: Any) -> Array:
        check_is_fitted(self)
        # Row by row the bits are the same whatever the batch: see `fastconv.conv`.
        return self.model_.predict(self._images(X)).astype(np.float64)


class CNNClassifier(ClassifierMixin, _CNN):  # type: ignore[misc]
    """A small convolutional network that tells classes of images apart.

    Each entry of `filters` is a 3x3 convolution with ReLU and a 2x2 maximum; each entry of `hidden`
    a dense layer with ReLU; then softmax. Adam minimises the cross-entropy. It computes in float32.
    Scale the pixels first, for example with ``MinMaxScaler``.

    Parameters
    ----------
    filters : tuple of int
        Filters of each convolution.
    hidden : tuple of int
        Units of each dense layer before the output.
    network : callable, optional
        ``network(input_shape, outputs, seed=seed)`` returns a `fastconv.nn.Sequential` instead,
        as `fastconv.examples.digits_cnn` does.
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


class CNNRegressor(RegressorMixin, _CNN):  # type: ignore[misc]
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


class _Report:
    """Prints a line an epoch."""

    def on_epoch_end(self, state: nn.FitState) -> None:
        """Say how the epoch went."""
        shown = ("loss", "accuracy", "val_loss", "val_accuracy")
        rows = [
            f"{name} {state.metrics[name]:.4f}" for name in shown if state.metrics[name] is not None
        ]
        print(f"epoch {state.epoch} of {state.epochs}: {', '.join(rows)}")
