"""What a model loses without a view or a feature, and what that costs: it is trained again without each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.evaluation.cost import OnlineReads, latency_ms, read_us
from ml_platform.spec import HAPPENS_AT, ModelSpec
from ml_platform.training.encoding import Encoding
from ml_platform.training.estimators import train
from ml_platform.training.model import Model
from ml_platform.training.training_set import HOLDOUT, LABEL, PART, TRAIN
from ml_platform.training.workers import Site

EVERYTHING = "(everything)"


def by_view(spec: ModelSpec, rows: pl.DataFrame) -> dict[str, list[str]]:
    """View -> its inputs; each categorical column alone."""
    inputs = Encoding.learn(spec, rows).inputs
    found: dict[str, list[str]] = {}
    for name in inputs:
        found.setdefault(name.partition("__")[0], []).append(name)
    return found


def by_feature(spec: ModelSpec, rows: pl.DataFrame) -> dict[str, list[str]]:
    """Every input alone."""
    return {name: [name] for name in Encoding.learn(spec, rows).inputs}


def ablate(
    spec: ModelSpec,
    parts: pl.DataFrame,
    groups: Mapping[str, Sequence[str]],
    timezone: str,
    *,
    threads: int,
    site: Site | None = None,
    online: OnlineReads | None = None,
) -> pl.DataFrame:
    """One line a group of inputs, what matters most first, behind that of the model with everything.

    parts: a training set with its ``part``. lost: log-loss a row that the model without the group loses on the holdout,
    with its 95 % interval over days. importance: the group's share in the model with everything. saved_training_s,
    saved_us_a_row: seconds of training and microseconds of a single answer of the model that the group costs, as
    measured here. read_us: microseconds of reading the group online for one question, as ``read_us`` says; null without
    ``online``, or where the store holds nothing.

    Raises:
        TooFewLabels: too little to train on, or a holdout of one day.
    """
    learned, held = parts.filter(pl.col(PART) == TRAIN), parts.filter(pl.col(PART) == HOLDOUT)
    days = held[HAPPENS_AT].dt.convert_time_zone(timezone).dt.date()
    everything = Encoding.learn(spec, learned).inputs
    # Before anything is trained: a store that cannot be reached is found at once.
    whole_us, alone_us = (online and read_us(online, everything, groups)) or (None, {})
    whole, seconds, answer_us, given = _trained(spec, learned, held, threads, site)
    lines = [_line(EVERYTHING, whole.encoding.inputs, metrics.log_loss(held[LABEL], given))]
    lines[0] |= {"saved_training_s": seconds, "saved_us_a_row": answer_us, "read_us": whole_us, "importance": 1.0}
    for name, inputs in groups.items():
        _, without_s, without_us, without = _trained(_without(spec, inputs), learned.drop(inputs), held, threads, site)
        lost = metrics.paired_gain(held[LABEL], without, given, days, seed=spec.seed, resamples=spec.gate.resamples)
        line = _line(name, inputs, metrics.log_loss(held[LABEL], without))
        line |= {"lost": lost.mean, "lost_low": lost.low, "lost_high": lost.high}
        line |= {"saved_training_s": seconds - without_s, "saved_us_a_row": answer_us - without_us}
        line["read_us"] = alone_us.get(name)
        lines.append({**line, "importance": sum(whole.importances.get(each, 0.0) for each in inputs)})
    first, *others = lines
    return pl.DataFrame([first, *sorted(others, key=lambda line: -line["lost"])], infer_schema_length=None)


def _line(name: str, inputs: Sequence[str], log_loss: float) -> dict[str, Any]:
    return {
        "without": name,
        "inputs": len(inputs),
        "log_loss": log_loss,
        "lost": 0.0,
        "lost_low": 0.0,
        "lost_high": 0.0,
    }


def _without(spec: ModelSpec, inputs: Sequence[str]) -> ModelSpec:
    categorical = tuple(name for name in spec.task.categorical if name not in inputs)
    return replace(spec, task=replace(spec.task, categorical=categorical))


def _trained(
    spec: ModelSpec, learned: pl.DataFrame, held: pl.DataFrame, threads: int, site: Site | None
) -> tuple[Model, float, float, np.ndarray]:
    """The model, seconds it took, microseconds of a single answer (the median), its answers on the holdout."""
    begun = perf_counter()
    model = train(spec, learned, threads=threads, site=site)
    seconds = perf_counter() - begun
    return model, seconds, float(np.median(latency_ms(model, held))) * 1000, model.predict(held)
