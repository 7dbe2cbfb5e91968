"""Run as a process: `python -m ml_platform.bench.monitoring_contracts_arm ours|great-expectations ROWS`."""

import json
import os
import sys
import time
from typing import Any

import polars as pl


def main(arm: str, path: str) -> None:
    """Judge the rows once; the last line says how long it took and what was found."""
    rows = pl.read_parquet(path)
    said = _ours(rows) if arm == "ours" else _theirs(rows)
    print(json.dumps(said))  # noqa: T201  # what a benchmark's arm says


def _ours(rows: pl.DataFrame) -> dict[str, Any]:
    """Verdicts, counts, and each bad row with its reasons."""
    from ml_platform.bench.monitoring_contracts import EXPECTATIONS
    from ml_platform.sources.contract import reasons_of
    from ml_platform.sources.observe import observe

    begun, cpu = time.perf_counter(), time.process_time()
    found = observe(EXPECTATIONS, rows)
    failed = {name: each.unexpected for name, each in found.items() if each.success is False}
    bad = reasons_of({name: flags for name, flags in failed.items() if flags is not None})
    took, used = time.perf_counter() - begun, time.process_time() - cpu
    told = {
        each.expectation.type + str(sorted(map(str, each.expectation.columns))): [
            bool(each.success),
            each.broken if each.unexpected is not None else None,
        ]
        for each in found.values()
    }
    return {"seconds": took, "cpu": used, "convert": 0.0, "found": told, "bad_rows": bad.len() - bad.null_count()}


def _theirs(rows: pl.DataFrame) -> dict[str, Any]:
    """Verdicts and counts, at the detail that it gives by default."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    from ml_platform.bench.monitoring_contracts import EXPECTATIONS
    from ml_platform.sources.suites import as_suite_entry

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    batches = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")
    suite = gx.ExpectationSuite(name="bench", expectations=[as_suite_entry(each) for each in EXPECTATIONS])
    converted = time.perf_counter()
    frame = rows.to_pandas()
    convert = time.perf_counter() - converted
    begun, cpu = time.perf_counter(), time.process_time()
    found = batches.get_batch({"dataframe": frame}).validate(suite)
    took, used = time.perf_counter() - begun, time.process_time() - cpu
    told = {}
    for each in found.results:
        kwargs = each.expectation_config.kwargs
        columns = [kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs]
        of_rows = "element_count" in each.result
        count = each.result["unexpected_count"] if of_rows else None
        told[each.expectation_config.type + str(sorted(columns))] = [bool(each.success), count]
    return {"seconds": took, "cpu": used, "convert": convert, "found": told}


if __name__ == "__main__":
    main(*sys.argv[1:])
