"""One arm of the join's benchmark: ``python -m ml_platform.bench.features_join_arm ARM CASE FOLDER [ANSWER]``.

Prints one line of JSON: seconds of the retrieval alone (questions in memory as a pandas frame, answer as Arrow), by
the wall and summed over cores, and the megabytes held when it began.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.bench.arms import peak_mb
from ml_platform.bench.features_join_data import CASES, QUESTIONS, TTL, Case, View, open_store

Answer = Callable[[], pa.Table]


def _feast(store: str, parquet: str = "plain", **how: Any) -> Callable[[Case, Path, Any], Answer]:
    def arm(case: Case, folder: Path, asked: Any) -> Answer:
        opened = open_store(store, case, folder, parquet)
        references = [name for view in case.views for name in view.references]
        return lambda: opened.get_historical_features(asked, references, **how).to_arrow()

    return arm


def _tuned_duckdb(case: Case, folder: Path, asked: Any) -> Answer:
    """Files sorted by key and time, and DuckDB told that it need not keep the order of rows."""
    ibis = import_module("ibis")  # in the extra `bench` alone
    connection = ibis.duckdb.connect()
    connection.raw_sql("SET preserve_insertion_order = false")
    ibis.set_backend(connection)
    return _feast("duckdb", "sorted", filter_by_created_timestamp=True)(case, folder, asked)


def _asof(*, tuned: bool) -> Callable[[Case, Path, Any], Answer]:
    def arm(case: Case, folder: Path, asked: Any) -> Answer:
        return lambda: _joined_by_hand(case, folder, pl.from_pandas(asked), tuned=tuned).to_arrow()

    return arm


def _joined_by_hand(case: Case, folder: Path, asked: pl.DataFrame, *, tuned: bool) -> pl.DataFrame:
    moments = pl.col("event_timestamp").cast(pl.Datetime("us", "UTC"))
    answer = asked.with_columns(moments).sort("event_timestamp")
    for view in case.views:
        rows = _leading(pl.scan_parquet(folder / "plain" / view.name / "*.parquet"), view)
        if tuned:
            left = answer.lazy().select(view.key, "event_timestamp")
            joined = left.join_asof(
                rows.sort("seen"), left_on="event_timestamp", right_on="seen", by=view.key, check_sortedness=False
            )
            fresh = pl.col("at") >= pl.col("event_timestamp") - TTL
            names = [f"{view.name}_{name}" for name in ("amount", "share", "count")]
            values = joined.select(pl.when(fresh).then(pl.col(name)).alias(name) for name in names).collect()
            answer = answer.hstack(values)
        else:
            found = rows.collect().sort("seen")
            answer = answer.join_asof(found, left_on="event_timestamp", right_on="seen", by=view.key)
            fresh = pl.col("at") >= pl.col("event_timestamp") - TTL
            names = [name for name in found.columns if name.startswith(f"{view.name}_") and name != view.key]
            answer = answer.with_columns(pl.when(fresh).then(pl.col(name)).alias(name) for name in names)
            answer = answer.drop("at", "known_at", "seen", strict=False)
    return answer


def _leading(rows: pl.LazyFrame, view: View) -> pl.LazyFrame:
    """Without the corrections of older events, a row is the newest from when it was seen on."""
    seen = pl.max_horizontal("at", "known_at").alias("seen")
    ordered = rows.with_columns(seen).sort("seen", "known_at")
    return ordered.filter(pl.col("at") == pl.col("at").cum_max().over(view.key)).unique(
        [view.key, "seen"], keep="last", maintain_order=True
    )


ARMS = {
    "ours": _feast("ours"),
    "Feast duckdb": _feast("duckdb", filter_by_created_timestamp=True),
    "Feast duckdb, tuned": _tuned_duckdb,
    "join_asof by hand": _asof(tuned=False),
    "join_asof, tuned": _asof(tuned=True),
}


def main() -> None:
    """Run one arm once."""
    # As in an environment of Feast alone: it loads torch where it finds it, and no retrieval needs it. That is 190 MB
    # in every arm, which say nothing of a store.
    sys.modules["torch"] = None  # type: ignore[assignment]
    arm, case, folder = sys.argv[1], CASES[sys.argv[2]], Path(sys.argv[3])
    asked = pq.read_table(folder / QUESTIONS).to_pandas()
    answer = ARMS[arm](case, folder, asked)
    held = peak_mb()
    started, worked = perf_counter(), process_time()
    found = answer()
    seconds, worked = perf_counter() - started, process_time() - worked
    if len(sys.argv) > 4:
        pq.write_table(found, sys.argv[4])
    sys.stdout.write(
        json.dumps({"seconds": seconds, "core_seconds": worked, "held_mb": held, "rows": found.num_rows}) + "\n"
    )


if __name__ == "__main__":
    main()
