"""A logistic regression of breast tumours from 30 measurements, in NumPy alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def train(loader: Any, hyperparameters: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Descend the gradient of the cross-entropy over the loader's epochs."""
    weight, bias = np.zeros(loader.features, np.float32), np.zeros(1, np.float32)
    rate = hyperparameters["learning_rate"]
    for epoch in loader.epochs(hyperparameters["epochs"]):
        losses = []
        for x, y in epoch:
            z = x @ weight + bias
            slope = (1 / (1 + np.exp(-z)) - y).astype(np.float32)
            weight -= rate * x.T @ slope / len(y)
            bias -= rate * slope.mean()
            losses.append(float(np.mean(np.logaddexp(0, z) - y * z)))
        loader.report(loss=sum(losses) / len(losses))
    loader.evaluate(lambda x: x @ weight + bias > 0)
    return {"weight": weight, "bias": bias}
