"""Great Expectations itself, asked about a frame: the oracle of our expectations."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml_platform.sources.suites import as_suite_entry
from ml_platform.spec.expectations import Expectation

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # nothing is sent from a test


@dataclass(frozen=True)
class Told:
    """What Great Expectations said: verdict, positions of the rows that fail (of a row expectation), its result."""

    success: bool
    rows: list[int] | None
    result: Mapping[str, Any]
    raised: str = ""


class GreatExpectations:
    """One context without files, for many frames."""

    def __init__(self) -> None:
        import great_expectations as gx

        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore")
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        self.batches = (
            context.data_sources.add_pandas("frames")
            .add_dataframe_asset("frame")
            .add_batch_definition_whole_dataframe("whole")
        )

    def asked(self, rows: pl.DataFrame, expectations: Sequence[Expectation]) -> list[Told]:
        """What it says of each expectation on the frame, as pandas holds it."""
        from great_expectations import ExpectationSuite

        return self.asked_as_pandas(as_pandas(rows), expectations, ExpectationSuite)

    def asked_as_pandas(self, frame: Any, expectations: Sequence[Expectation], suite: Any) -> list[Told]:
        """The same of a frame of pandas."""
        entries = [as_suite_entry(each) for each in expectations]
        for place, entry in enumerate(entries):
            entry["meta"] = {"place": place}  # results come in an order of their own
        made = suite(name="asked", expectations=entries)
        if len(made.expectations) != len(entries):
            raise AssertionError("Great Expectations did not take every expectation")
        found = self.batches.get_batch({"dataframe": frame}).validate(made, result_format="COMPLETE")
        told: list[Told | None] = [None] * len(entries)
        for each in found.results:
            place = each.expectation_config.meta["place"]
            raised = each.exception_info.get("exception_message") or _inner(each.exception_info)
            rows = each.result.get("unexpected_index_list") if each.result else None
            if rows is None and each.result and each.result.get("unexpected_count") == 0:
                rows = []
            told[place] = Told(bool(each.success), rows, dict(each.result or {}), raised)
        if None in told:
            raise AssertionError("Great Expectations answered fewer expectations than it was asked")
        return [each for each in told if each is not None]


def _inner(info: Mapping[str, Any]) -> str:
    for value in info.values():
        if isinstance(value, Mapping) and value.get("exception_message"):
            return str(value["exception_message"])
    return ""


def as_pandas(rows: pl.DataFrame) -> Any:
    """The frame as pandas holds it: numbers with gaps as floats, texts as objects."""
    return rows.to_pandas()
