"""A classifier of breast tumours by DP-SGD (Abadi et al. 2016), for a hospital to review.

What to look for: each record's gradient is clipped by itself, before they are added up; the noise
comes from the operating system's randomness, never from a seed; it is added in every step, also of
an empty batch; and nothing is given but the weights: no metric, and no number of records.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRIVACY = json.loads((Path(__file__).parent / "manifest.json").read_text())["privacy"]


def clipped_sum(gradients: NDArray[np.float32], norm: float) -> NDArray[np.float64]:
    """The sum of the records' gradients, [records, parameters], each of at most `norm` in L2."""
    lengths = np.linalg.norm(gradients.astype(np.float64), axis=1, keepdims=True)
    return np.asarray((gradients / np.maximum(1.0, lengths / norm)).sum(axis=0))


def train(loader: Any, hyperparameters: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Fit a logistic regression over the loader's epochs; its weights by name, as float32."""
    random = np.random.default_rng()  # seeded by the operating system
    norm = PRIVACY["clipping_norm"]
    deviation = PRIVACY["noise_multiplier"] * norm
    weight, bias = np.zeros(loader.features, np.float32), np.zeros(1, np.float32)
    for epoch in loader.epochs(hyperparameters["epochs"]):
        for x, y in epoch:
            residuals = 1 / (1 + np.exp(-(x @ weight + bias))) - y
            gradients = residuals[:, None] * np.hstack([x, np.ones((len(x), 1), np.float32)])
            noisy = clipped_sum(gradients, norm) + random.normal(0, deviation, loader.features + 1)
            # The expected size of a batch: the real one is secret.
            step = (hyperparameters["learning_rate"] * noisy / loader.batch_size).astype(np.float32)
            weight, bias = weight - step[:-1], bias - step[-1:]
    loader.evaluate(lambda x: x @ weight + bias > 0)
    return {"weight": weight, "bias": bias}
