"""Integrated gradients of a stored network, in what its first layer gets: embeddings, standardized numbers, flags.

Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (2017). A category has no gradient, and a missing
number none either; their embedding and their flag do. Imports PyTorch at its top, so import it inside functions.
"""

from collections.abc import Mapping

import numpy as np
import torch

from ml_platform.training.contributions import Contributions
from ml_platform.training.encoding import Encoding, Floats
from ml_platform.training.torch_layers import TabularNetwork

_FEWEST_STEPS, _MOST_STEPS = 256, 16384
_SMALL_GAP = 1e-6  # of log-odds, beyond which twice as many steps are tried


def integrated(weights: Mapping[str, torch.Tensor], encoding: Encoding, row: Floats) -> Contributions:
    """From the baseline (a number at its training median, a category at the mean of all its embeddings) to the row.

    weights: ``TabularNetwork``'s, by name. row: encoded, of shape (inputs,).
    """
    network = _rebuilt(weights)
    count = len(network.sizes)
    asked = network.entering(torch.from_numpy(row.reshape(1, -1)))[0].double()
    layers = network.layers.double()
    start = torch.zeros_like(asked)
    # The last one is that of a missing category: all that there is where training saw none.
    known = [each.weight[:-1] if len(each.weight) > 1 else each.weight for each in network.embeddings]
    means = [weight.double().mean(dim=0) for weight in known]
    if means:
        start[: sum(map(len, means))] = torch.cat(means)
    with torch.no_grad():
        base, raw = (float(layers(end.reshape(1, -1))[0, 0]) for end in (start, asked))
    steps, along = _FEWEST_STEPS, _along(layers, start, asked, _FEWEST_STEPS)
    while steps < _MOST_STEPS and abs(raw - base - float(along.sum())) > _SMALL_GAP:
        steps *= 2
        along = _along(layers, start, asked, steps)
    found = along.detach().numpy()
    width = 0 if not means else len(means[0])
    categories = found[: count * width].reshape(count, width).sum(axis=1)
    numbers = found[count * width :].reshape(2, -1).sum(axis=0)
    return Contributions(
        values=np.concatenate([categories, numbers]),
        base=base,
        raw=raw,
        scale="log-odds",
        method=f"integrated gradients, {steps} steps",
        baseline="each number at its median in training, each category at the mean of its embeddings",
        baselines=(*(None for _ in encoding.categories), *(float(value) for value in network.center)),
    )


def _along(layers: torch.nn.Module, start: torch.Tensor, end: torch.Tensor, steps: int) -> torch.Tensor:
    """The integral by midpoints."""
    places = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    points = (start + places[:, None] * (end - start)).requires_grad_(True)
    (gradients,) = torch.autograd.grad(layers(points)[:, 0].sum(), points)
    return (end - start) * gradients.mean(dim=0)


def _rebuilt(weights: Mapping[str, torch.Tensor]) -> TabularNetwork:
    """The network whose graph was stored: sizes are those of its weights."""
    embeddings = [weights[name] for name in sorted(_named(weights, "embeddings."), key=_place)]
    linear = [weights[name] for name in sorted(_named(weights, "layers."), key=_place)]
    settings = {
        "embedding": embeddings[0].shape[1] if embeddings else 0,
        "hidden": [weight.shape[0] for weight in linear[:-1]],
        "dropout": 0.0,
    }
    amounts = (0.0, 1.0) if linear[-1].shape[0] > 1 else None  # of the amount nothing is asked
    sizes = [weight.shape[0] - 1 for weight in embeddings]
    network = TabularNetwork(sizes, weights["center"], weights["scale"], amounts, settings)
    network.load_state_dict(dict(weights))
    network.eval()
    network.requires_grad_(False)
    return network


def _named(weights: Mapping[str, torch.Tensor], prefix: str) -> list[str]:
    return [name for name in weights if name.startswith(prefix) and name.endswith(".weight")]


def _place(name: str) -> int:
    return int(name.split(".")[1])
