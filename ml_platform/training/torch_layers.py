"""The layers of the network. Imports PyTorch at its top, so import it inside functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ml_platform.training.encoding import Encoding, Floats

_FAR = 6.0  # standard deviations beyond which an input pulls no harder


class TabularNetwork(torch.nn.Module):  # type: ignore[misc]  # mypy is told to skip torch
    """Embedded categories, standardized numbers and a flag for each missing number, then a perceptron."""

    def __init__(
        self,
        sizes: list[int],
        center: torch.Tensor,
        scale: torch.Tensor,
        amounts: tuple[float, float] | None,
        settings: Mapping[str, Any],
    ):
        """``amounts``: center and spread of the truth's amount, where that is learned, too."""
        super().__init__()
        self.amounts = amounts
        self.sizes = sizes
        self.embeddings = torch.nn.ModuleList(torch.nn.Embedding(n + 1, settings["embedding"]) for n in sizes)
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)
        width = len(sizes) * settings["embedding"] + 2 * len(center)
        layers: list[torch.nn.Module] = []
        for hidden in settings["hidden"]:
            layers += [torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Dropout(settings["dropout"])]
            width = hidden
        # The first output is the log-odds, the second the amount in spreads from its center.
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1 if amounts is None else 2))

    def outputs(self, matrix: torch.Tensor) -> torch.Tensor:
        """(rows, outputs) for encoded rows (float64, NaN where missing)."""
        return self.layers(self.entering(matrix))

    def entering(self, matrix: torch.Tensor) -> torch.Tensor:
        """(rows, width): what the first layer gets; embeddings by input, then standardized numbers, then flags."""
        count = len(self.sizes)
        parts = [
            embedding(torch.nan_to_num(matrix[:, n], nan=float(size)).long())
            for n, (embedding, size) in enumerate(zip(self.embeddings, self.sizes, strict=True))
        ]
        numbers = matrix[:, count:]
        standard = torch.nan_to_num((numbers - self.center) / self.scale, nan=0.0).clamp(-_FAR, _FAR)
        flags = torch.isnan(numbers)
        return torch.cat([*parts, standard.float(), flags.float()], dim=1)

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        """(rows, outputs), float64: P(label = 1), then the truth's amount where it was learned."""
        outputs = self.outputs(matrix).double()
        chance = torch.sigmoid(outputs[:, :1])
        if self.amounts is None:
            return chance
        center, spread = self.amounts
        return torch.cat([chance, center + spread * outputs[:, 1:]], dim=1)

    def input_weights(self, categories: int) -> NDArray[np.float64]:
        """Absolute weight that the first layer gives each input, its flag and embedding included."""
        weights = self.layers[0].weight.detach().abs().sum(dim=0).double().numpy()
        embedded = len(weights) - 2 * len(self.center)
        each = weights[:embedded].reshape(categories, -1).sum(axis=1) if categories else np.empty(0)
        return np.concatenate([each, *np.atleast_2d(weights[embedded:].reshape(2, -1).sum(axis=0))])


@dataclass(frozen=True, kw_only=True)
class Scales:
    """What standardizes numbers, center and spread of each; and those of the truth's amount where it is learned."""

    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    amounts: tuple[float, float] | None

    @classmethod
    def learn(cls, encoding: Encoding, matrix: Floats, amounts: NDArray[np.float32] | None) -> "Scales":
        """From rows: median, and spread where there is one. amounts: NaN where one is missing; None: none learned."""
        numbers = np.ma.masked_invalid(matrix[:, len(encoding.categories) :])
        center = np.ma.median(numbers, axis=0).filled(0.0)  # type: ignore[no-untyped-call]
        scale = numbers.std(axis=0).filled(0.0)
        scale[scale == 0] = 1.0
        known = None if amounts is None else amounts[~np.isnan(amounts)]
        # Amounts have long tails; half the distance between the quartiles keeps most of them near.
        middle = None if known is None else np.quantile(known, [0.25, 0.5, 0.75])
        spread = None if middle is None else (float(middle[1]), max(float(middle[2] - middle[0]) / 2, 1e-6))
        return cls(center=center, scale=scale, amounts=spread)


def build(encoding: Encoding, scales: Scales, settings: Mapping[str, Any]) -> TabularNetwork:
    """An untrained network."""
    sizes = [len(values) for values in encoding.categories.values()]
    # Each network owns its buffers: what is trained elsewhere is loaded into them.
    center, scale = torch.from_numpy(scales.center).clone(), torch.from_numpy(scales.scale).clone()
    return TabularNetwork(sizes, center, scale, scales.amounts, settings)


def loss_of(
    outputs: torch.Tensor, truth: torch.Tensor, amounts: tuple[float, float] | None, weight: float
) -> torch.Tensor:
    """Log-loss of the label, and ``weight`` times the Huber loss of the amount where it is known.

    truth: (rows, 1 or 2): label, amount (NaN where it is missing).
    """
    loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], truth[:, 0])
    if amounts is None:
        return loss
    center, spread = amounts
    known = ~torch.isnan(truth[:, 1])
    wanted = torch.where(known, (truth[:, 1] - center) / spread, 0.0)
    off = torch.nn.functional.smooth_l1_loss(outputs[:, 1], wanted, reduction="none")
    return loss + weight * (off * known).sum() / known.sum().clamp(min=1)
