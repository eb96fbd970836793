"""What the estimators for scikit-learn share: parameters, images, training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastconv import nn
from fastconv.adapters.sklearn.images import image_shape_of, small_cnn
from fastconv.adapters.sklearn.parameters import Parameters, as_numpy, own_network
from fastconv.nn.checks import Array, quiet

__all__ = ["CNN"]

# (input_shape, outputs, seed=...) -> network, as `fastconv.examples.digits_cnn`
Network = Callable[..., nn.Sequential]
AUTO_BATCH = 200  # as of scikit-learn's MLPClassifier


class CNN(BaseEstimator):
    """What classifier and regressor share: images, network, training."""

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
        self.warm_start = warm_start
        self.data_format = data_format

    # What the two differ in ---------------------------------------------------------------------

    def _targets(self, y: Any, classes: Any, first: bool) -> Array:
        """`y` as the loss wants it; learns the classes when `first`."""
        raise NotImplementedError

    def _outputs(self) -> int:
        """Outputs of the network."""
        raise NotImplementedError

    def _loss(self) -> nn.Loss:
        raise NotImplementedError

    def _weights(self, y: Any, sample_weight: Any, balanced: bool) -> Any:
        """Weights of the images with targets `y`, or None; `balanced`: by the classes' numbers."""
        return sample_weight

    # Training -----------------------------------------------------------------------------------

    @quiet
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train a new network; with `warm_start`, go on with the one that there is.

        Parameters
        ----------
        X : array (m, features), (m, H, W) or (m, H, W, C)
        y : array (m,)
            For a regressor also (m, outputs).
        sample_weight : array (m,), optional
            How much each image counts. The loss of a batch divides by the sum of its weights, so
            that a weight of 2 is not exactly an image that is there twice: batches differ. Images
            that are held out count all alike.

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
        asked = Parameters.of(self)
        if self.warm_start and hasattr(self, "model_"):
            X, y, weights = self._again(X, y, None, sample_weight, True)
            self.optimizer_.lr, self.optimizer_.weight_decay = asked.learning_rate_init, asked.alpha
        else:
            X, y, weights = self._start(X, y, None, asked, sample_weight, True)
        validation = None
        patience, tol = asked.n_iter_no_change, asked.tol
        stopping = nn.EarlyStopping(patience, "loss", tol, restore_best=False)
        if asked.early_stopping:
            stopping = nn.EarlyStopping(patience, "val_loss", tol)
            train, held = self._held_out(X, y, asked.validation_fraction)
            validation = (X[held], y[held])
            X, y = X[train], y[train]
            weights = None if weights is None else weights[train]
        return self._train(X, y, asked.max_iter, validation, stopping, asked, weights)

    def _again(
        self, X: Any, y: Any, classes: Any, sample_weight: Any, balanced: bool
    ) -> tuple[Array, Array, Array | None]:
        """Check the data for the network that there is."""
        self._check_given(y)
        X = self._images(X)
        y = self._checked_length(X, self._targets(as_numpy("y", y), classes, first=False))
        return X, y, self._checked_weights(X, y, sample_weight, balanced)

    def _check_given(self, y: Any) -> None:
        if y is None:
            raise ValueError(
                f"requires y to be passed, but the target y is None: {type(self).__name__}"
            )

    def _checked_weights(
        self, X: Array, y: Array, sample_weight: Any, balanced: bool
    ) -> Array | None:
        """Weights (m,) of the images, or None where all are equal."""
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                as_numpy("sample_weight", sample_weight), X, dtype=np.float64,
                ensure_non_negative=True,
            )  # fmt: skip
        weights = self._weights(y, sample_weight, balanced)
        if weights is not None and not weights.sum() > 0:
            raise ValueError("sample_weight: at least one image must count, all weights are 0")
        return weights

    def _held_out(self, X: Array, y: Array, fraction: float) -> tuple[Array, Array]:
        """Numbers of the images to train on, then of those that are held out."""
        stratify = y if isinstance(self, ClassifierMixin) else None
        try:
            train, held = train_test_split(
                np.arange(len(X)), test_size=fraction, stratify=stratify,
                random_state=self._draw_seed(),
            )  # fmt: skip
        except ValueError as error:
            each = ", some of each class," if stratify is not None else ""
            raise ValueError(
                f"validation_fraction={self.validation_fraction!r} of {len(X)} images cannot be "
                f"held out{each} with others left: early_stopping needs more images"
            ) from error
        return train, held

    @quiet
    def _partial_fit(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> Any:
        asked = Parameters.of(self)
        if hasattr(self, "model_"):
            X, y, weights = self._again(X, y, classes, sample_weight, False)
        else:
            X, y, weights = self._start(X, y, classes, asked, sample_weight, False)
        return self._train(X, y, 1, None, None, asked, weights)

    def _start(
        self, X: Any, y: Any, classes: Any, asked: Parameters, sample_weight: Any, balanced: bool
    ) -> tuple[Array, Array, Array | None]:
        """Check the data and make a network for them."""
        self._check_given(y)
        self._random_state = check_random_state(self.random_state)
        X = self._images(X, first=asked)
        y = self._checked_length(X, self._targets(as_numpy("y", y), classes, first=True))
        weights = self._checked_weights(X, y, sample_weight, balanced)
        shape, outputs, seed = X.shape[1:], self._outputs(), self._draw_seed()
        if asked.network is None:
            self.model_ = small_cnn(shape, outputs, asked.filters, asked.hidden, seed)
        else:
            self.model_ = own_network(asked.network, shape, outputs, seed)
        self.optimizer_ = nn.Adam(
            self.model_.parameters(), lr=asked.learning_rate_init, weight_decay=asked.alpha
        )
        self.history_ = nn.History()
        return X, y, weights

    def _train(
        self, X: Array, y: Array, epochs: int, validation: Any, stopping: Any, asked: Parameters,
        weights: Array | None,
    ) -> Any:  # fmt: skip
        batch_size = min(AUTO_BATCH, len(X)) if asked.batch_size is None else asked.batch_size
        try:
            history = nn.fit(
                self.model_,
                self._loss(),
                self.optimizer_,
                X,
                y,
                epochs=epochs,
                batch_size=batch_size,
                validation=validation,
                sample_weight=weights,
                early_stopping=stopping,
                seed=self._draw_seed(),
                callbacks=[_Report()] if asked.verbose else [],
            )
        except FloatingPointError as error:
            raise FloatingPointError(
                "the loss is not finite any more: scale X (and a regressor's y), or try a smaller "
                f"learning_rate_init than {self.learning_rate_init!r}"
            ) from error
        done = len(self.history_)
        rows = enumerate(history.epochs, done + 1)
        self.history_.epochs += [{**row, "epoch": epoch} for epoch, row in rows]
        self.n_iter_ = len(self.history_)
        self.loss_ = self.history_["loss"][-1]
        return self

    def _draw_seed(self) -> int:
        return int(self._random_state.randint(2**31 - 1))

    # Images -------------------------------------------------------------------------------------

    def _images(self, X: Any, first: Parameters | None = None) -> Array:
        """`X` as float32 images (m, H, W, C); learns their shape the first time."""
        X = as_numpy("X", X)
        if isinstance(X, (list, tuple)):  # of rows, or of images
            try:
                X = np.asarray(X)
            except ValueError as error:
                raise ValueError("X: rows or images of one shape are needed") from error
        if getattr(X, "ndim", 2) > 2:
            X = check_array(X, allow_nd=True, dtype=np.float32, input_name="X")
            own_shape = (*X.shape[1:], 1) if X.ndim == 3 else X.shape[1:]
            if X.ndim == 4 and self._channels_first():
                X = np.moveaxis(X, 1, -1)
                own_shape = X.shape[1:]
                X = np.ascontiguousarray(X)
            X = X.reshape(len(X), math.prod(own_shape))
        else:
            own_shape = None
        X = validate_data(self, X, reset=first is not None, dtype=np.float32, order="C")
        if first is not None:
            asked = first.image_shape
            if asked is not None and len(asked) == 3 and self._channels_first():
                asked = (*asked[1:], asked[0])
            self.image_shape_ = image_shape_of(X.shape[1], own_shape, asked)
            if own_shape is None and asked is None and self.image_shape_[0] == 1 < X.shape[1]:
                warnings.warn(
                    f"X: {X.shape[1]} features are no square, so each row is taken for an image of "
                    f"one line of pixels, {self.image_shape_}; image_shape=(H, W) says another",
                    UserWarning,
                    stacklevel=4,
                )
        elif own_shape not in (None, self.image_shape_):
            raise ValueError(f"X has images of shape {own_shape}, fitted were {self.image_shape_}")
        if own_shape is None and self._channels_first():
            H, W, C = self.image_shape_
            return np.ascontiguousarray(np.moveaxis(X.reshape(len(X), C, H, W), 1, -1))
        images: Array = X.reshape(len(X), *self.image_shape_)
        return images

    def _channels_first(self) -> bool:
        return self.data_format == "channels_first"

    @staticmethod
    def _checked_length(X: Array, y: Array) -> Array:
        if len(y) != len(X):
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"X has {len(X)}, y {len(y)}"
            )
        return y

    @quiet
    def _forward(self, X: Any) -> Array:
        check_is_fitted(self)
        # Row by row the bits are the same whatever the batch: see `fastconv.conv`.
        return self.model_.predict(self._images(X)).astype(np.float64)


class _Report:
    """Prints a line an epoch."""

    def on_epoch_end(self, state: nn.FitState) -> None:
        """Say how the epoch went."""
        shown = ("loss", "accuracy", "val_loss", "val_accuracy")
        rows = [
            f"{name} {state.metrics[name]:.4f}" for name in shown if state.metrics[name] is not None
        ]
        print(f"epoch {state.epoch} of {state.epochs}: {', '.join(rows)}")
