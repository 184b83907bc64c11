"""A linear classifier of breast tumours from 30 measurements, in scikit-learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import SGDClassifier


def train(loader: Any, hyperparameters: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Fit a logistic regression by stochastic gradient descent over the loader's epochs."""
    model = SGDClassifier(
        loss="log_loss",
        alpha=hyperparameters["alpha"],
        average=True,
        random_state=hyperparameters["seed"],
    )
    for _ in loader.partial_fit(model, [0, 1], hyperparameters["epochs"]):
        loader.report(norm=float(np.linalg.norm(model.coef_)))
    loader.evaluate(model.predict)
    return {"coef": model.coef_, "intercept": model.intercept_}
