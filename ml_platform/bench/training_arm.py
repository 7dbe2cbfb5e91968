"""One arm of the training benchmark: ``python -m ml_platform.bench.training_arm ARM FOLDER [TREES]``.

Prints one line of JSON: seconds from data in memory to the booster, by the wall and summed over cores, and resident
memory before and at its peak. ``make`` writes the data instead, ``network`` measures what a network is fed with.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import click
import numpy as np
import polars as pl

from ml_platform.bench.arms import peak_mb
from ml_platform.spec import Label, ModelSpec, Task
from ml_platform.training.encoding import Encoding
from ml_platform.training.estimators import patient_threads
from ml_platform.training.lightgbm_trees import fit_trees
from ml_platform.training.training_set import LABEL

CATEGORIES = {"carrier": 16, "origin": 3, "destination": 105}
NUMBERS = 37
BATCH_ROWS = 1024  # the network's default
_EPOCHS = 5  # the flights' network is trained for as many, twice
_VIEW = "measured"
_MISSING = 0.05  # share of nulls in every numeric column
_SEED = 20250101
_THREADS = os.cpu_count() or 1

SPEC = ModelSpec(
    name="measured",
    description="What the benchmark trains.",
    task=Task(
        name="measured",
        spine="asked",
        key="row",
        happens_at="at",
        lead=timedelta(hours=1),
        entities=tuple(CATEGORIES),
        categorical=tuple(CATEGORIES),
        label=Label(table="ended", on=("row",), value=pl.col(LABEL), description="Made up."),
        description="Made up.",
    ),
    views=(_VIEW,),
    estimator="lightgbm",
    parameters={"num_leaves": 63, "learning_rate": 0.05, "min_data_in_leaf": 100, "feature_fraction": 0.7},
)
# What `fit_trees` tells LightGBM; the trees are compared before anything is timed.
BARE = {
    "objective": "binary",
    "metric": "binary_logloss",
    "deterministic": True,
    "force_row_wise": True,
    "seed": SPEC.seed,
    "num_threads": _THREADS,
    "verbosity": -1,
    **SPEC.parameters,
}


def make(folder: Path, rows: int) -> None:
    """A training set of 40 inputs, and the same ones encoded as a matrix, row by row, with its labels."""
    draw = np.random.default_rng(_SEED)
    numbers: dict[str, Any] = {}
    score = np.zeros(rows)
    for number in range(NUMBERS):
        values = draw.normal(size=rows)
        if number < 8:
            score += values * 0.3 + 0.2 * (values > 1)
        numbers[f"{_VIEW}__{number}"] = pl.Series(np.where(draw.random(rows) < _MISSING, np.nan, values)).fill_nan(None)
    codes = {name: draw.integers(0, count, rows) for name, count in CATEGORIES.items()}
    score += (codes["carrier"] % 3 - 1) * 0.4
    texts = {
        name: pl.Series([f"{name} {n:03}" for n in range(CATEGORIES[name])]).gather(code)
        for name, code in codes.items()
    }
    label = (draw.random(rows) < 1 / (1 + np.exp(1.4 - score))).astype(np.int64)
    frame = pl.DataFrame({LABEL: label, **texts, **numbers})
    frame.write_parquet(folder / "rows.parquet")
    np.save(folder / "label.npy", frame[LABEL].cast(pl.Float32).to_numpy())
    np.save(folder / "matrix.npy", Encoding.learn(SPEC, frame).frame_matrix(frame))


def _ours(folder: Path) -> Callable[[int], str]:
    import lightgbm  # noqa: F401  # as the other arms, before the clock starts

    rows = pl.read_parquet(folder / "rows.parquet")
    return lambda rounds: str(fit_trees(SPEC, rows, rounds, threads=_THREADS).booster.model_to_string(num_iteration=-1))


def _bare(folder: Path) -> Callable[[int], str]:
    import lightgbm as lgb

    matrix, label = np.load(folder / "matrix.npy"), np.load(folder / "label.npy")
    return _trained(lambda: lgb.Dataset(matrix, label=label, **_named()))


def _bare_arrow(folder: Path) -> Callable[[int], str]:
    import lightgbm as lgb

    names = _named()["feature_name"]
    table = pl.DataFrame(np.load(folder / "matrix.npy"), schema=names).fill_nan(None).to_arrow()
    label = np.load(folder / "label.npy")
    return _trained(lambda: lgb.Dataset(table, label=label, **_named()))


def _named() -> dict[str, Any]:
    names = [*CATEGORIES, *(f"{_VIEW}__{number}" for number in range(NUMBERS))]
    return {"feature_name": names, "categorical_feature": list(CATEGORIES), "params": dict(BARE)}


def _trained(dataset: Callable[[], Any]) -> Callable[[int], str]:
    import lightgbm as lgb

    return lambda rounds: str(lgb.train(BARE, dataset(), num_boost_round=rounds).model_to_string(num_iteration=-1))


ARMS = {"ours": _ours, "bare": _bare, "bare, from Arrow": _bare_arrow}


def trees(text: str) -> str:
    """Of a LightGBM model's text the trees alone."""
    return text[text.index("Tree=0") : text.index("end of trees")]


def train(arm: str, folder: Path, rounds: int, answer: Path | None) -> dict[str, float]:
    """Time one arm."""
    patient_threads()
    trained = ARMS[arm](folder)
    before = _forget_peak()
    started, worked = perf_counter(), process_time()
    text = trained(rounds)
    seconds, cpu = perf_counter() - started, process_time() - worked
    if answer:
        answer.write_text(trees(text))
    return {"seconds": seconds, "cpu": cpu, "before_mb": before, "peak_mb": peak_mb()}


def network(folder: Path) -> dict[str, float]:
    """From a frame to the batches of some epochs as a network takes them: shuffled rows of tensors in memory."""
    import torch

    from ml_platform.training.torch_fit import batches

    rows = pl.read_parquet(folder / "rows.parquet")
    started, worked = perf_counter(), process_time()
    matrix = Encoding.learn(SPEC, rows).frame_matrix(rows)
    truths = rows.select(pl.col(LABEL).cast(pl.Float32)).to_numpy(writable=True)
    inputs, truth = torch.from_numpy(matrix), torch.from_numpy(truths)
    converted, converted_cpu = perf_counter() - started, process_time() - worked
    started, worked = perf_counter(), process_time()
    everything, device = torch.arange(len(truth)), torch.device("cpu")
    for _ in range(_EPOCHS):
        for chosen in batches(everything, BATCH_ROWS, torch.default_generator, device):
            batch = inputs[chosen], truth[chosen]
            assert len(batch[0]) == len(batch[1]) > 0
    return {
        "converted": converted,
        "converted_cpu": converted_cpu,
        "epoch": (perf_counter() - started) / _EPOCHS,
        "epoch_cpu": (process_time() - worked) / _EPOCHS,
    }


def _forget_peak() -> float:
    """Resident megabytes now; the kernel's peak begins anew from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def main(words: list[str]) -> dict[str, float]:
    """What the first word says."""
    arm, folder, others = words[0], Path(words[1]), words[2:]
    if arm == "make":
        make(folder, int(others[0]))
        return {}
    if arm == "network":
        return network(folder)
    return train(arm, folder, int(others[0]), Path(others[1]) if others[1:] else None)


if __name__ == "__main__":
    click.echo(json.dumps(main(sys.argv[1:])))
