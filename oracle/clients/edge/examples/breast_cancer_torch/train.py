"""A small classifier of breast tumours from 30 measurements, in PyTorch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def train(loader: Any, hyperparameters: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Fit a two-layer perceptron over the loader's epochs; its weights by name, as float32."""
    torch.set_num_threads(1)
    torch.manual_seed(hyperparameters["seed"])
    model = nn.Sequential(
        nn.Linear(loader.features, hyperparameters["hidden"]),
        nn.ReLU(),
        nn.Linear(hyperparameters["hidden"], 1),
    )
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=hyperparameters["learning_rate"],
        weight_decay=hyperparameters["weight_decay"],
    )
    loss_of = nn.BCEWithLogitsLoss()
    for epoch in loader.torch(hyperparameters["epochs"]):
        total, count = 0.0, 0
        for x, y in epoch:
            optimizer.zero_grad()
            loss = loss_of(model(x).squeeze(1), y)
            loss.backward()
            optimizer.step()
            total, count = total + loss.item() * len(y), count + len(y)
        loader.report(loss=total / count)

    def predict(x: NDArray[np.float32]) -> NDArray[np.bool_]:
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(x)).squeeze(1) > 0)

    loader.evaluate(predict)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
