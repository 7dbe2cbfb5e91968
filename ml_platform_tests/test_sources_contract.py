"""Contracts: every row is judged by every rule, none is lost."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.sources.contract import apply_contract, judge
from ml_platform.spec import (
    ContractBroken,
    DeclarationError,
)
from ml_platform.spec import expectations as gxe
from ml_platform_tests.shop_world import COLUMNS, D1, SHOPS, at, frame, sales, table

_cells = st.tuples(
    st.sampled_from(["a", "b", "c", "d", None]),
    st.sampled_from([-1, 0, 4, 5, 9, 10, None]),
    st.sampled_from(["red", "blue", "green", None]),
    st.sampled_from(["north", "south", "east", None]),
    st.integers(0, 3).map(lambda hours: at(D1, hours)),
)


def _broken_by_hand(row: dict[str, Any]) -> list[str]:
    """The rules of ``table`` in plain Python, one row at a time."""
    broken = []
    if row["id"] is None:
        broken.append("id_not_null")
    if row["value"] is not None and not 0 <= row["value"] <= 9:
        broken.append("value_between_0_and_9")
    if row["colour"] not in ("red", "blue", None):
        broken.append("colour_is_known")
    if row["shop"] not in ("north", "south", None):
        broken.append("shop_in_shops")
    if row["colour"] == "blue" and row["value"] is not None and row["value"] >= 5:
        broken.append("blue_is_small")
    return broken


@given(st.lists(_cells, max_size=25))
@settings(max_examples=150, deadline=None)
def test_every_row_is_good_or_quarantined_for_exactly_the_rules_it_breaks(cells: list[tuple[Any, ...]]) -> None:
    rows = frame(*cells).with_row_index("nr")
    source = table(rows, columns={"nr": pl.UInt32, **COLUMNS}, max_quarantined=1.0)
    found = apply_contract(source, rows, {"shops": SHOPS})

    expected: dict[int, str] = {}
    kept: set[tuple[str | None, datetime]] = set()
    for row in sorted(rows.to_dicts(), key=lambda r: (r["known_at"], r["id"] is not None, r["id"] or "", r["nr"])):
        broken = _broken_by_hand(row)
        if (row["id"], row["known_at"]) in kept:  # known later, it would be a correction
            broken.append("duplicate_key")
        if broken:
            expected[row["nr"]] = ", ".join(broken)
        else:
            kept.add((row["id"], row["known_at"]))
    assert dict(found.quarantined.select("nr", "reason").iter_rows()) == expected
    assert sorted(found.good["nr"].to_list() + list(expected)) == list(range(len(cells)))
    assert found.quarantined.drop("reason").schema == rows.schema
    counts = {name: sum(name in reason.split(", ") for reason in expected.values()) for name in found.verdicts}
    assert {n: v.measures["broken"] for n, v in found.verdicts.items() if "broken" in v.measures} == {
        n: c for n, c in counts.items() if n != "share_quarantined"
    }


def test_a_stop_rule_refuses_with_rule_counts_and_three_examples() -> None:
    rows = sales(D1, 20).with_columns(value=pl.col("value") * -1)
    source = table(
        rows, rules=(gxe.ExpectColumnValuesToBeBetween(column="value", min_value=0, max_value=9, action="stop"),)
    )
    with pytest.raises(ContractBroken) as refusal:
        apply_contract(source, rows, {})
    text = str(refusal.value)
    assert "18 of 20 rows of raw/sales break value_between_0_and_9, which stops the table" in text
    assert text.count("value=-") == 3
    assert "id=s09-001, known_at=2024-03-09 06:09:00+00:00, value=-1 |" in text


def test_too_many_quarantined_rows_refuse_the_batch_but_one_alone_does_not() -> None:
    source = table(sales(D1, 20))
    few = sales(D1, 5).with_columns(colour=pl.when(pl.col("value") == 1).then(pl.lit("green")).otherwise("colour"))
    assert apply_contract(source, few, {"shops": SHOPS}).quarantined.height == 1
    assert judge(replace(source, max_quarantined=0.0), few, {"shops": SHOPS}).refusal
    many = sales(D1, 20).with_columns(colour=pl.when(pl.col("value") < 2).then(pl.lit("green")).otherwise("colour"))
    with pytest.raises(ContractBroken, match=r"4 of 20 rows of raw/sales were set aside, more than the share of 0\.1"):
        apply_contract(source, many, {"shops": SHOPS})


def test_columns_in_another_order_are_no_change() -> None:
    rows = sales(D1, 5)
    assert apply_contract(table(rows), rows.select(reversed(COLUMNS)), {"shops": SHOPS}).good.equals(rows)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ((gxe.ExpectInvariantToHold(name="typo", holds=pl.col("valeu") > 0),), "cannot be evaluated.*valeu"),
        (
            (*gxe.ExpectColumnValuesToNotBeNull.each("id"), *gxe.ExpectColumnValuesToNotBeNull.each("id")),
            "share a name",
        ),
        (
            (gxe.ExpectColumnValuesToReferTo(column="shop", table="shapes", other="shop"),),
            "refers to raw/shapes, which was not handed over; known: shops",
        ),
    ],
)
def test_a_wrong_rule_is_a_wrong_declaration(rules: tuple[gxe.Expectation, ...], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        apply_contract(table(sales(D1, 5), rules=rules), sales(D1, 5), {"shops": SHOPS})


def test_a_rule_that_is_a_literal_or_null_has_a_value_for_each_row() -> None:
    rules = (
        gxe.ExpectInvariantToHold(name="never", holds=pl.lit(False)),
        gxe.ExpectInvariantToHold(name="null", holds=pl.lit(None, pl.Boolean)),
    )
    found = judge(table(sales(D1, 3), rules=rules), sales(D1, 3), {})
    assert found.quarantined["reason"].to_list() == ["never"] * 3  # null: it does not apply
