"""A small classifier of breast tumours from 30 measurements, in TensorFlow."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def train(loader: Any, hyperparameters: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Fit a two-layer perceptron over the loader's epochs; its weights by name, as float32."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    hidden, rate = hyperparameters["hidden"], hyperparameters["learning_rate"]
    random = tf.random.Generator.from_seed(hyperparameters["seed"])

    def layer(inputs: int, outputs: int) -> tuple[Any, Any]:
        scale = (2 / inputs) ** 0.5
        return (
            tf.Variable(random.normal((inputs, outputs)) * scale),
            tf.Variable(tf.zeros(outputs)),
        )

    (first, first_bias), (second, second_bias) = layer(loader.features, hidden), layer(hidden, 1)
    variables = [first, first_bias, second, second_bias]

    def logits(x: Any) -> Any:
        return tf.squeeze(tf.nn.relu(x @ first + first_bias) @ second + second_bias, 1)

    shape = tf.TensorSpec((None, loader.features)), tf.TensorSpec((None,))

    @tf.function(input_signature=shape)  # type: ignore[untyped-decorator]
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits(x))
            loss = tf.reduce_mean(losses)
        for variable, slope in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(rate * slope)
        return loss

    for epoch in loader.tensorflow(hyperparameters["epochs"]):
        losses = [float(step(x, y)) for x, y in epoch]
        loader.report(loss=sum(losses) / len(losses))
    loader.evaluate(lambda x: logits(tf.constant(x)).numpy() > 0)
    names = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
    return {name: variable.numpy() for name, variable in zip(names, variables, strict=True)}
