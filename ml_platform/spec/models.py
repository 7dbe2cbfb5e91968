"""What is predicted and by which model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import polars as pl

from ml_platform.spec.compute import Compute, Workers
from ml_platform.spec.fingerprint import NOT_CONTENT

Approval = Literal["automatic", "person"]
Baseline = Literal["constant", "logistic"]
HAPPENS_AT, ASKED_AT = "happens_at", "asked_at"  # a question's moments, whatever the spine calls the first


@dataclass(frozen=True, kw_only=True)
class Label:
    """The truth about a predicted row, known later: ``value`` over the columns of raw table ``table``.

    ``on`` joins it to the rows that were predicted; null means that there is no truth (a cancelled flight).
    quantity: the same truth as an amount in its unit (minutes late), for models that learn both.
    """

    table: str
    on: tuple[str, ...]
    value: pl.Expr
    description: str
    quantity: pl.Expr | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is predicted, when it is asked and how the truth is learned; shared by models and services.

    spine: the raw table whose rows are the things predicted; ``key`` names one of them (the prediction's id).
    happens_at: column of the spine with the moment of the event; the question is asked ``lead`` before it.
    grid: features are as of the last full step of this grid before the question; zero: of the very moment.
    entities: columns of the spine that look features up (the join keys of all views).
    derive: columns added to the spine before use (entity columns that the raw table does not hold).
    categorical: entity columns that are features themselves.
    """

    name: str
    spine: str
    key: str
    happens_at: str
    lead: timedelta
    entities: tuple[str, ...]
    categorical: tuple[str, ...]
    label: Label
    description: str
    grid: timedelta = timedelta(0)
    derive: Mapping[str, pl.Expr] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """When a challenger may replace the champion, judged on the same fresh rows.

    holdout: the newest event days, kept out of training; ``min_rows`` labelled rows are needed.
    min_gain: log-loss that the challenger must win (0: any), with ``confidence`` by a paired bootstrap over days.
    approval: ``person``: what passed waits until somebody says `ml-platform approve` (or `reject`).
    baselines: what it must beat, learned from the same training rows: one that is surely better (95 %) refuses it, one
        that cannot be told apart with the confidence warns.
    latency_budget_ms: within it 95 % of single rows must be answered (by the model, features at hand).
    auc_ceiling: a better AUC is too good to be true: it warns, and names the input that is likely to leak the label.
    weight_bound: largest absolute weight (leaf value) that is still sane.
    min_maturity: share of the holdout's labels (0..1) that must have arrived: those that come late are not like others.
    """

    holdout: timedelta = timedelta(days=7)
    min_rows: int = 1000
    min_gain: float = 0.0
    confidence: float = 0.8
    resamples: int = 1000
    # How a version is judged is no reason to train another one.
    approval: Approval = field(default="automatic", metadata=NOT_CONTENT)
    baselines: tuple[Baseline, ...] = field(default=("constant", "logistic"), metadata=NOT_CONTENT)
    latency_budget_ms: float = field(default=50.0, metadata=NOT_CONTENT)
    auc_ceiling: float = field(default=0.98, metadata=NOT_CONTENT)
    weight_bound: float = field(default=1e4, metadata=NOT_CONTENT)
    min_maturity: float = field(default=0.8, metadata=NOT_CONTENT)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The judged rows by the values of ``by``: the report shows every group, and no group may lose to the champion.

    by: over the columns of the training set; ``happens_at`` is in the project's local time.
    bands: where numbers are cut: ``(500, 1000)`` makes three groups.
    margin: log-loss that a group may lose. min_rows: a group with fewer rows is shown and not judged.
    """

    by: pl.Expr
    bands: tuple[float, ...] = ()
    margin: float = 0.02
    min_rows: int = 300


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Slices whose groups are compared in the report as to who is called a one: at ``threshold`` and above."""

    slices: tuple[str, ...]
    threshold: float = 0.5


@dataclass(frozen=True)
class Between:
    """A parameter of a search: a number from ``low`` to ``high``, both included; whole if both are."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which parameters may be better: it becomes ``studies/<model>``, which is made when somebody asks for it.

    space: parameter -> ``Between``, or the values to choose from. trials: how many are carried through.
    folds: parts of the training rows, in the order of time, on which a trial is judged; it learns from what lies
        ``gap`` and more before them. A trial that is worse than most after a fold is stopped there.
    """

    space: Mapping[str, Between | tuple[Any, ...]]
    trials: int = 30
    folds: int = 3
    gap: timedelta = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model; it becomes ``training_sets/<name>``, ``models/<name>`` and ``evaluations/<name>``.

    views: feature views and request views whose features it uses, all of them, in this order; a request view stands
        behind those that it reads.
    estimator, parameters: ``lightgbm`` takes LightGBM's parameters, ``torch`` those of ``torch_network.DEFAULTS``,
        ``sklearn`` what ``scikit`` makes, ``blend`` what ``blend_of`` makes.
    train_window: how far back the training rows go from the holdout's start; ``None`` is everything (expanding).
    policy: name of the ``RetrainPolicy`` that decides when it is trained again; ``None``: only when asked.
    challenges: name of a model whose place it competes for in ``contests/<that model>``: another window, estimator or
        choice of its views; trained when asked.
    slices: by name, groups of rows that the report shows and the gate looks at. fairness: which of them to compare.
    compute: ``local`` trains in the process that asks; ``ddp`` a network by ``workers`` of this machine; ``ray``
        network or trees by workers on a Ray cluster, where the trials of its search run, too.
    """

    task: Task
    views: tuple[str, ...]
    estimator: Literal["lightgbm", "torch", "sklearn", "blend"]
    parameters: Mapping[str, Any]
    description: str
    seed: int = 2013
    train_window: timedelta | None = timedelta(days=90)
    min_rows: int = 1000
    gate: GatePolicy = GatePolicy()
    slices: Mapping[str, Slice] = field(default_factory=dict, metadata=NOT_CONTENT)
    fairness: Fairness | None = field(default=None, metadata=NOT_CONTENT)
    search: Search | None = None
    compute: Compute = "local"
    workers: Workers = field(default_factory=Workers)
    policy: str | None = None
    challenges: str | None = field(default=None, metadata=NOT_CONTENT)
    fresh_within: timedelta | None = None
    owner: str = "team:data-science"
    name: str = ""


def blend_of(*members: ModelSpec, weights: tuple[float, ...] | None = None) -> dict[str, Any]:
    """Parameters of a blend: the mean of the members' probabilities, trained on the blend's own rows and views.

    weights: one a member, in any unit; equal by default.
    """
    given = weights or (1.0,) * len(members)
    if len(given) != len(members) or not members or min(given) <= 0:
        raise ValueError(f"a blend needs members and a positive weight for each; {len(members)} and {given} were given")
    shares = [weight / sum(given) for weight in given]
    return {
        "members": [
            {"estimator": spec.estimator, "parameters": dict(spec.parameters), "share": share}
            for spec, share in zip(members, shares, strict=True)
        ]
    }


def scikit(*steps: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters of a scikit-learn pipeline: (importable class, arguments) of each step; the last one classifies."""
    return {"steps": [[path, dict(arguments)] for path, arguments in steps]}
