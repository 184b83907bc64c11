"""A small classifier of breast tumours from 30 measurements, in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

Weights = dict[str, Any]


def initial(key: Any, features: int, hidden: int) -> Weights:
    first, second = jax.random.split(key)
    return {
        "hidden.weight": jax.random.normal(first, (features, hidden)) * (2 / features) ** 0.5,
        "hidden.bias": jnp.zeros(hidden),
        "output.weight": jax.random.normal(second, (hidden,)) * (1 / hidden) ** 0.5,
        "output.bias": jnp.zeros(()),
    }


def logits(weights: Weights, x: Any) -> Any:
    hidden = jax.nn.relu(x @ weights["hidden.weight"] + weights["hidden.bias"])
    return hidden @ weights["output.weight"] + weights["output.bias"]


def loss_of(weights: Weights, x: Any, y: Any) -> Any:
    """Mean binary cross-entropy from logits."""
    z = logits(weights, x)
    return jnp.mean(jax.nn.softplus(z) - y * z)


def make_step(rate: float, decay: float) -> Any:
    """One step of AdamW (Loshchilov & Hutter, 2019)."""

    def step(
        weights: Weights, first: Weights, second: Weights, count: float, x: Any, y: Any
    ) -> tuple[Weights, Weights, Weights, Any]:
        loss, gradient = jax.value_and_grad(loss_of)(weights, x, y)
        first = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, first, gradient)
        second = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, second, gradient)

        def update(weight: Any, m: Any, v: Any) -> Any:
            direction = (m / (1 - BETA_1**count)) / (jnp.sqrt(v / (1 - BETA_2**count)) + EPSILON)
            return weight - rate * (direction + decay * weight)

        return jax.tree.map(update, weights, first, second), first, second, loss

    return jax.jit(step)


def train(loader: Any, hyperparameters: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Fit a two-layer perceptron over the loader's epochs; its weights by name, as float32."""
    key = jax.random.PRNGKey(hyperparameters["seed"])
    weights = initial(key, loader.features, hyperparameters["hidden"])
    first = second = jax.tree.map(jnp.zeros_like, weights)
    step = make_step(hyperparameters["learning_rate"], hyperparameters["weight_decay"])
    count = 0
    for epoch in loader.jax(hyperparameters["epochs"], drop_last=False):
        losses = []
        for x, y in epoch:
            count += 1
            weights, first, second, loss = step(weights, first, second, float(count), x, y)
            losses.append(float(loss))
        loader.report(loss=sum(losses) / len(losses))
    loader.evaluate(lambda x: np.asarray(logits(weights, x)) > 0)
    return {name: np.asarray(value) for name, value in weights.items()}
