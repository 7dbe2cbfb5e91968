"""The layers of the network; the one module that imports PyTorch at its top, so import it inside functions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ml_platform.training.encoding import Encoding, Floats

_FAR = 6.0  # standard deviations beyond which an input pulls no harder


class TabularNetwork(torch.nn.Module):  # type: ignore[misc]  # mypy is told to skip torch
    """Embedded categories, standardized numbers and a flag for each missing number, then a perceptron."""

    def __init__(self, sizes: list[int], center: torch.Tensor, scale: torch.Tensor, settings: Mapping[str, Any]):
        super().__init__()
        self.sizes = sizes
        self.embeddings = torch.nn.ModuleList(torch.nn.Embedding(n + 1, settings["embedding"]) for n in sizes)
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)
        width = len(sizes) * settings["embedding"] + 2 * len(center)
        layers: list[torch.nn.Module] = []
        for hidden in settings["hidden"]:
            layers += [torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Dropout(settings["dropout"])]
            width = hidden
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))

    def logits(self, matrix: torch.Tensor) -> torch.Tensor:
        """Log-odds of each encoded row (float64, NaN where missing)."""
        count = len(self.sizes)
        parts = [
            embedding(torch.nan_to_num(matrix[:, n], nan=float(size)).long())
            for n, (embedding, size) in enumerate(zip(self.embeddings, self.sizes, strict=True))
        ]
        numbers = matrix[:, count:]
        standard = torch.nan_to_num((numbers - self.center) / self.scale, nan=0.0).clamp(-_FAR, _FAR)
        flags = torch.isnan(numbers)
        return self.layers(torch.cat([*parts, standard.float(), flags.float()], dim=1)).squeeze(1)

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        """P(label = 1) of each encoded row, float64."""
        return torch.sigmoid(self.logits(matrix).double())

    def input_weights(self, categories: int) -> NDArray[np.float64]:
        """Absolute weight that the first layer gives each input, its flag and embedding included."""
        weights = self.layers[0].weight.detach().abs().sum(dim=0).double().numpy()
        embedded = len(weights) - 2 * len(self.center)
        each = weights[:embedded].reshape(categories, -1).sum(axis=1) if categories else np.empty(0)
        return np.concatenate([each, *np.atleast_2d(weights[embedded:].reshape(2, -1).sum(axis=0))])


def build(encoding: Encoding, matrix: Floats, settings: Mapping[str, Any]) -> TabularNetwork:
    """An untrained network whose standardization is learned from the rows: median, and spread where there is one."""
    numbers = np.ma.masked_invalid(matrix[:, len(encoding.categories) :])
    center = np.ma.median(numbers, axis=0).filled(0.0)  # type: ignore[no-untyped-call]
    scale = numbers.std(axis=0).filled(0.0)
    scale[scale == 0] = 1.0
    sizes = [len(values) for values in encoding.categories.values()]
    return TabularNetwork(sizes, torch.from_numpy(center), torch.from_numpy(scale), settings)
