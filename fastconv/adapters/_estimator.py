"""What the estimators for scikit-learn share: parameters, images, training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fastconv import nn
from fastconv.adapters._images import image_shape_of, small_cnn
from fastconv.nn.base import Array, positive_int

__all__ = ["CNN"]

# (input_shape, outputs, seed=...) -> network, as `fastconv.examples.digits_cnn`
Network = Callable[..., nn.Sequential]


class CNN(BaseEstimator):
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
            self.model_,
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


class _Report:
    """Prints a line an epoch."""

    def on_epoch_end(self, state: nn.FitState) -> None:
        """Say how the epoch went."""
        shown = ("loss", "accuracy", "val_loss", "val_accuracy")
        rows = [
            f"{name} {state.metrics[name]:.4f}" for name in shown if state.metrics[name] is not None
        ]
        print(f"epoch {state.epoch} of {state.epochs}: {', '.join(rows)}")
