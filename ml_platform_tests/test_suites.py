"""Contracts as suite files of Great Expectations, back, and as its Data Docs."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from ml_platform.cli import main
from ml_platform.resources.projects import load_project
from ml_platform.sources.contract import judge
from ml_platform.sources.contract_docs import write_docs
from ml_platform.sources.contract_results import as_results
from ml_platform.sources.suite_source import declaration, written
from ml_platform.sources.suites import as_suite, from_suite, read_suite
from ml_platform.spec import DeclarationError, Project
from ml_platform.spec import expectations as gxe
from ml_platform_tests.expectation_world import SHARED
from ml_platform_tests.shop_world import D1, SHOPS, sales, table

OWN = (
    gxe.ExpectInvariantToHold(name="small", holds=pl.col("value") + 1 < 9, mostly=0.5, action="warn", notes="as ever"),
    gxe.ExpectColumnValuesToReferTo(column="shop", table="shops", other="shop", besides=("kiosk",)),
    gxe.ExpectTableRowCountToBeUsual(by=("shop",), min_ratio=0.5, max_ratio=1.5, severity="warning"),
)


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project("ml_platform.projects.flights")


def _same(one: gxe.Expectation, other: gxe.Expectation) -> bool:
    """Fields are equal, expressions in what they say."""
    mine, theirs = vars(one), vars(other)
    return type(one) is type(other) and all(
        value.meta.eq(theirs[name]) if isinstance(value, pl.Expr) else _plain(value) == _plain(theirs[name])
        for name, value in mine.items()
    )


def _plain(value: Any) -> Any:
    """A list and a tuple are the same declaration."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def test_every_type_comes_back_from_a_suite_file_and_from_its_python() -> None:
    rng = np.random.default_rng(7)
    seen = set()
    for _ in range(20):
        rules = [replace(make(rng), name=f"rule {n}") for n, make in enumerate(SHARED)]
        source = table(sales(D1, 1), rules=(*rules, *OWN))
        back = read_suite(json.dumps(as_suite(source)))
        assert back.left_out == ()
        for rule, found in zip([*rules, *OWN], back.expectations, strict=True):
            assert _same(rule, found)
            scope = {"gxe": gxe, "pl": pl, "io": __import__("io"), "timedelta": __import__("datetime").timedelta}
            assert _same(eval(written(found), scope), found)
            seen.add(rule.type)
    assert len(seen) >= 48


def test_the_flights_contracts_come_back(project: Project) -> None:
    for source in project.tables.values():
        back = from_suite(json.loads(json.dumps(as_suite(source))))
        wanted = sorted(source.rules, key=lambda rule: rule.own)
        assert back.left_out == ()
        assert [_same(*pair) for pair in zip(wanted, back.expectations, strict=True)] == [True] * len(wanted)


def test_what_a_suite_file_holds_that_cannot_be_expressed_is_told() -> None:
    suite = {
        "expectation_suite_name": "old",
        "expectations": [
            {
                "expectation_type": "expect_column_values_to_not_be_null",
                "kwargs": {"column": "a", "result_format": "BASIC"},
            },
            {"type": "expect_column_kl_divergence_to_be_less_than", "kwargs": {"column": "a"}},
            {"type": "expect_column_max_to_be_between", "kwargs": {"column": "a", "max_value": {"$PARAMETER": "top"}}},
            {"type": "expect_column_values_to_be_null", "kwargs": {"column": "a", "row_condition": "a > 5 and b"}},
            {"type": "expect_column_values_to_be_null", "kwargs": {"column": "a", "row_condition": 'col("b") >= 5'}},
            {"type": "expect_column_values_to_be_null", "kwargs": {"column": "a", "strange": 1}},
            {"type": "expect_column_values_to_be_null", "kwargs": {}},
        ],
    }
    found = from_suite(suite)
    assert [written(rule) for rule in found.expectations] == [
        "gxe.ExpectColumnValuesToNotBeNull(column='a')",
        "gxe.ExpectColumnValuesToBeNull(row_condition=gxe.Column('b') >= 5, column='a')",
    ]
    said = "\n".join(found.left_out)
    for part in ("nothing here says the same", "suite parameter (top)", "a > 5 and b", "arguments strange", "'column'"):
        assert part in said
    assert declaration(found).count("# cannot be expressed: ") == 5
    for text in ("", "[]", "{}"):
        with pytest.raises(DeclarationError, match="this is no suite file"):
            read_suite(text)


def test_the_command_line_writes_and_reads_suite_files(tmp_path: Path) -> None:
    file, runner = tmp_path / "new" / "weather.json", CliRunner()
    told = runner.invoke(main, ["contract", "export", "weather", str(file)], catch_exceptions=False)
    assert "expectations in " in told.output
    assert "of our own in its meta" in told.output
    back = runner.invoke(main, ["contract", "import", str(file)], catch_exceptions=False)
    assert back.exit_code == 0
    assert "gxe.ExpectColumnValuesToBeBetween(column='temp', min_value=-30, max_value=120)" in back.output
    file.write_text(file.read_text().replace("expect_column_values_to_be_in_set", "expect_what_nobody_knows"))
    assert runner.invoke(main, ["contract", "import", str(file)]).exit_code == 1
    wrong = runner.invoke(main, ["contract", "export", "wether", str(file)])
    assert wrong.exit_code == 1
    assert "did you mean weather?" in wrong.output


def _results() -> dict[str, Any]:
    rows = sales(D1, 20).with_columns(colour=pl.when(pl.col("value") == 9).then(pl.lit("green")).otherwise("colour"))
    source = table(
        rows, rules=(*table(rows).rules, gxe.ExpectColumnMeanToBeBetween(column="value", max_value=2), OWN[0], OWN[2])
    )
    found = judge(source, rows, {"shops": SHOPS}, around=gxe.Around())
    return as_results(source, rows, found, "2024-03-09", datetime(2024, 3, 10, tzinfo=UTC))


def test_results_are_told_as_great_expectations_tells_them() -> None:
    results = _results()
    colour = next(each for each in results["results"] if each["kwargs"].get("column") == "colour")
    assert (colour["success"], colour["result"]["unexpected_count"]) == (False, 2)
    assert colour["result"]["partial_unexpected_list"] == ["green", "green"]
    assert colour["result"]["partial_unexpected_counts"] == [{"value": "green", "count": 2}]
    mean = next(each for each in results["results"] if each["type"] == "expect_column_mean_to_be_between")
    assert (mean["success"], mean["result"]) == (False, {"observed_value": 4.5})
    assert (results["evaluated"], results["successful"]) == (9, 7)
    json.dumps(results, allow_nan=False)


@pytest.mark.long
def test_great_expectations_reads_the_suite_files_and_draws_the_page(project: Project, tmp_path: Path) -> None:
    from great_expectations import ExpectationSuite

    for source in project.tables.values():
        suite = as_suite(source)
        read = ExpectationSuite(**suite)
        assert [each.configuration.type for each in read.expectations] == [
            each["type"] for each in suite["expectations"]
        ]
        assert len(read.expectations) == sum(not rule.own for rule in source.rules)
        # What it writes again is the same contract to us.
        again = from_suite(read.to_json_dict())
        assert [_same(*pair) for pair in zip(again.expectations, from_suite(suite).expectations, strict=True)]
    results = _results()
    colour = next(each for each in results["results"] if each["kwargs"].get("column") == "colour")
    colour["result"]["partial_unexpected_counts"].append({"value": "<script>alert(1)</script>", "count": 1})
    page = write_docs(results, tmp_path / "docs" / "sales.html").read_text()
    assert "<script>alert" not in page
    # It is whole: nothing is fetched from elsewhere, so that it looks the same without a network and tells nobody.
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)[^\"']*|https?://[^\s<\"']+|@import", page) == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for part in (
        "raw/sales",
        "green",
        "77.78%",
        "small",
        "must belong to this set",
        "As many rows as on the same weekdays",
    ):
        assert part in page
