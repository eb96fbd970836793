"""scikit-learn: its nearest peer, MLPClassifier, and CNNClassifier, to about the same accuracy."""

from __future__ import annotations

import warnings

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from fastconv.sklearn import CNNClassifier

from . import Case

# Test accuracy that both reach.
ENOUGH = 0.95


def cases() -> list[Case]:
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)

    def fit(model):
        def run():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return model.fit(X_train, y_train).score(X_test, y_test) > ENOUGH

        return run

    return [
        Case(
            "1347 digits: MLPClassifier, 200 epochs; CNNClassifier, 10 epochs",
            fit(MLPClassifier(random_state=0)),
            fit(CNNClassifier(max_iter=10, random_state=0)),
        )
    ]
