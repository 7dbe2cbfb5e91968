"""Who trains a model: the process that asks, or workers that train it together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from ml_platform.spec.errors import DeclarationError, UnknownName
from ml_platform.spec.fingerprint import NOT_CONTENT

Compute = Literal["local", "ddp", "ray"]
# Which estimators can be trained by several workers, and the reason why another cannot.
_TRAINED_TOGETHER: Mapping[str, tuple[str, ...]] = {"ddp": ("torch",), "ray": ("torch", "lightgbm")}
_ALONE: Mapping[str, str] = {
    "lightgbm": "DDP is PyTorch's; trees are trained by several machines with compute='ray'",
    "sklearn": "scikit-learn fits in one process",
    "blend": "it trains nothing of its own but its members, one after another",
}


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The processes that train one model together, where its ``compute`` is not ``local``.

    count, threads: ranks, and threads of each: another number of either gives other bits, so both are in the manifest.
    checkpoint_steps: a network is kept after each so many steps, so that a killed worker costs no more than these.
    restarts: how often workers are started again before the training fails.
    """

    count: int = 2
    threads: int = 1
    # How often it is kept and tried again decides nothing of what comes out.
    checkpoint_steps: int = field(default=200, metadata=NOT_CONTENT)
    restarts: int = field(default=3, metadata=NOT_CONTENT)


def refuse_compute(name: str, estimator: str, compute: str, workers: Workers) -> None:
    """Look whether a model can be trained in the way it says.

    Raises:
        DeclarationError: there is no such way, not for this estimator, or a number of its workers makes no sense.
    """
    if compute not in get_args(Compute):
        raise UnknownName(f"way to compute (model {name})", compute, get_args(Compute))
    least = {"count": 1, "threads": 1, "checkpoint_steps": 1, "restarts": 0}
    for field_name, smallest in least.items():
        given = getattr(workers, field_name)
        if given < smallest:
            raise DeclarationError(f"model {name} declares workers with {field_name}={given}; {smallest} is the least")
    if compute != "local" and estimator not in _TRAINED_TOGETHER[compute]:
        raise DeclarationError(
            f"model {name}: estimator {estimator} cannot be trained with compute={compute!r}: {_ALONE[estimator]}; "
            f"leave compute out"
        )
