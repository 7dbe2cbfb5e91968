"""One arm of the windows' benchmark: ``python -m ml_platform.bench.features_windows_arm ARM FOLDER [ANSWER]``.

Prints one line of JSON: seconds from frames in memory to the answer, by the wall and summed over cores. ``make`` writes
the data instead.
"""

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import click
import numpy as np
import polars as pl

from ml_platform.features.windows import AS_OF, values_at
from ml_platform.spec import KNOWN_AT, Entity, FeatureView, Window
from ml_platform.spec.features import Aggregate

SPANS = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7), "28d": timedelta(days=28)}
KINDS: tuple[Aggregate, ...] = ("sum", "mean", "count")
ENTITIES = 5_000
_START = datetime(2025, 1, 1, tzinfo=UTC)
_SECONDS_A_YEAR = 365 * 86_400
_SEED = 20250101

VIEW = FeatureView(
    name="orders",
    source="orders",
    entities=(Entity(name="shop", dtype="int64"),),
    description="What the benchmark asks for: three aggregates of one column over four windows.",
    features=tuple(Window("cents", kind, over=tuple(SPANS.values())) for kind in KINDS),
    key=("order",),
)
Arm = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]


def make(folder: Path, events: int, questions: int) -> None:
    """A year of orders in the order of time, some shops far busier than others, and questions at any second of it."""
    draw = np.random.default_rng(_SEED)

    def drawn(count: int) -> tuple[pl.Series, pl.Series]:
        shops = np.minimum(draw.exponential(ENTITIES / 5, count).astype(np.int64), ENTITIES - 1)
        seconds = np.sort(draw.integers(0, _SECONDS_A_YEAR, count)) * 1_000_000 + int(_START.timestamp()) * 1_000_000
        return pl.Series(shops), pl.Series(seconds).cast(pl.Datetime("us", "UTC"))

    shops, times = drawn(events)
    orders = pl.DataFrame({"order": np.arange(events), "shop": shops, "cents": draw.integers(-500, 50_000, events)})
    orders.with_columns(times.alias(KNOWN_AT)).write_parquet(folder / "events.parquet")
    shops, times = drawn(questions)
    pl.DataFrame({"shop": shops, AS_OF: times}).write_parquet(folder / "questions.parquet")


def ours(events: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    """Prefix sums read by binary search."""
    return values_at(VIEW, {VIEW.source: events}, questions)


def rolling(events: pl.DataFrame, questions: pl.DataFrame, *, tuned: bool = False) -> pl.DataFrame:
    """Polars' rolling expressions: the questions stand among the events as rows without a value.

    As they come, one an answer; ``tuned``, the means are made of sums and counts.
    """
    rows = pl.concat(
        [
            events.select("shop", pl.col(KNOWN_AT).alias(AS_OF), "cents", asked=pl.lit(None, pl.UInt32)),
            questions.with_row_index("asked").select("shop", AS_OF, cents=pl.lit(None, pl.Int64), asked="asked"),
        ]
    ).sort("shop", AS_OF)
    counted = pl.col("cents").is_not_null().cast(pl.Int64)
    sums, means = [], []
    for name, span in SPANS.items():
        window: dict[str, Any] = {"by": AS_OF, "window_size": span, "closed": "right"}
        sums.append(pl.col("cents").rolling_sum_by(**window).over("shop").alias(f"cents_sum_{name}"))
        sums.append(counted.rolling_sum_by(**window).over("shop").alias(f"cents_count_{name}"))
        mean = pl.col("cents").rolling_mean_by(**window).over("shop")
        by_hand = pl.col(f"cents_sum_{name}") / pl.col(f"cents_count_{name}")
        means.append((by_hand if tuned else mean).alias(f"cents_mean_{name}"))
    found = rows.with_columns(sums) if tuned else rows.with_columns(*sums, *means)
    found = found.filter(pl.col("asked").is_not_null()).sort("asked")
    return _named(found.with_columns(means) if tuned else found)


def asof(events: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    """Tuned by hand: running sums, and one ``join_asof`` for the upper edge and one a window for its lower edge."""
    total, count = pl.col("cents").cum_sum().over("shop"), pl.int_range(1, pl.len() + 1).over("shop")
    running = events.sort(KNOWN_AT).select("shop", at=KNOWN_AT, total=total, count=count)
    asked = questions.with_row_index("asked").sort(AS_OF)

    def up_to(moment: pl.Expr, name: str) -> pl.DataFrame:
        found = asked.select("asked", "shop", moment.alias("at")).join_asof(
            running, on="at", by="shop", check_sortedness=False
        )
        return found.select(pl.col("total", "count").fill_null(0).name.suffix(name))

    edges = [up_to(pl.col(AS_OF), "")]
    edges += [up_to(pl.col(AS_OF) - span, f"_{name}") for name, span in SPANS.items()]
    rows = pl.concat([asked, *edges], how="horizontal")
    answers = []
    for name in SPANS:
        total, count = pl.col("total") - pl.col(f"total_{name}"), pl.col("count") - pl.col(f"count_{name}")
        answers += [
            total.alias(f"cents_sum_{name}"),
            (total / count).alias(f"cents_mean_{name}"),
            count.alias(f"cents_count_{name}"),
        ]
    return _named(rows.with_columns(answers).sort("asked"))


def _named(found: pl.DataFrame) -> pl.DataFrame:
    """The columns of ``ours``, an empty window as it has it: sum and count zero, no mean."""
    whole = {name: pl.Int64 if kind == "int64" else pl.Float64 for name, kind in VIEW.schema().items()}
    return found.select(
        "shop",
        AS_OF,
        *(
            pl.when(pl.col(name.replace("_mean_", "_count_")) > 0).then(name).cast(kind).alias(name)
            if "_mean_" in name
            else pl.col(name).cast(kind).fill_null(0)
            for name, kind in whole.items()
        ),
    )


ARMS: Mapping[str, Arm] = {
    "ours": ours,
    "rolling_sum_by": rolling,
    "rolling, tuned": partial(rolling, tuned=True),
    "join_asof, tuned": asof,
}


def main(arm: str, folder: Path, answer: Path | None) -> None:
    """Time one arm."""
    events, questions = pl.read_parquet(folder / "events.parquet"), pl.read_parquet(folder / "questions.parquet")
    started, worked = perf_counter(), process_time()
    found = ARMS[arm](events, questions)
    seconds, cpu = perf_counter() - started, process_time() - worked
    if answer:
        found.write_parquet(answer)
    click.echo(json.dumps({"seconds": seconds, "cpu": cpu, "rows": found.height}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        click.echo("{}")
    else:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
