"""The lake: days are replaced as a whole, alone or by two processes at once."""

import multiprocessing as mp
import pickle
import shutil
import tempfile
from datetime import date, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ml_platform.spec import MissingHistory, StateError
from ml_platform.stores.delta import Lake
from ml_platform.stores.delta_kept import KeptRows

D1 = date(2024, 3, 9)
DAYS = [D1 + timedelta(days=n) for n in range(6)]


def rows(*days: date, value: int = 0) -> pl.DataFrame:
    schema = {"value": pl.Int64, "name": pl.String, "known_date": pl.Date}
    return pl.DataFrame([(value, f"v{value}", day) for day in days], schema=schema, orient="row")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "a new folder" / "lake"))


def content(lake: Lake, table: str = "raw/t") -> dict[date, list[int]]:
    found = lake.scan(table).group_by("known_date").agg(pl.col("value").sort()).collect()
    return {day: list(values) for day, values in found.iter_rows()}


def test_replacing_a_day_twice_keeps_one_copy_and_the_other_days(lake: Lake) -> None:
    lake.replace("raw/t", rows(*DAYS), DAYS)
    first = lake.replace("raw/t", rows(D1, D1, value=1), [D1])
    second = lake.replace("raw/t", rows(D1, D1, value=1), [D1])
    assert second == first + 1 == lake.version("raw/t")
    assert content(lake) == {D1: [1, 1], **{day: [0] for day in DAYS[1:]}}


def test_days_with_a_gap_leave_the_days_between_alone(lake: Lake) -> None:
    lake.replace("raw/t", rows(*DAYS), DAYS)
    ends = [DAYS[-1], DAYS[0]]
    lake.replace("raw/t", rows(*ends, value=7), ends)
    assert content(lake) == {DAYS[0]: [7], **{day: [0] for day in DAYS[1:-1]}, DAYS[-1]: [7]}


def test_rows_of_other_days_are_refused_before_anything_is_written(lake: Lake) -> None:
    with pytest.raises(StateError, match=r"2024-03-10 cannot be written to raw/t"):
        lake.replace("raw/t", rows(*DAYS[:2]), [D1])
    assert not lake.exists("raw/t")


def test_clearing_a_day_removes_its_rows_and_clearing_an_empty_one_writes_nothing(lake: Lake) -> None:
    lake.replace("raw/t", rows(*DAYS[:2]), DAYS[:2])
    version = lake.replace("raw/t", rows(), [D1])
    assert lake.days("raw/t") == {DAYS[1]}
    assert lake.replace("raw/t", rows(), [D1, DAYS[4]]) == version


def test_an_empty_first_write_makes_a_table_with_columns(lake: Lake) -> None:
    lake.replace("raw/t", rows(), [D1])
    assert lake.scan("raw/t").collect().schema == rows().schema
    assert lake.count("raw/t") == 0


def test_scan_and_count_take_days_and_an_older_version(lake: Lake) -> None:
    version = lake.replace("raw/t", rows(*DAYS), DAYS)
    lake.replace("raw/t", rows(value=1), DAYS[:3])
    assert lake.count("raw/t") == 3
    assert lake.count("raw/t", DAYS[2], DAYS[3]) == 1
    old = lake.scan("raw/t", first=DAYS[1], last=DAYS[2], version=version).collect()
    assert sorted(old["known_date"]) == DAYS[1:3]


def test_whole_tables_are_replaced_with_their_columns(lake: Lake) -> None:
    lake.replace("raw/ref", rows(D1).drop("known_date"), None)
    lake.replace("raw/ref", pl.DataFrame({"other": [1.5, 2.5]}), None)
    assert lake.scan("raw/ref").collect().to_dict(as_series=False) == {"other": [1.5, 2.5]}


def test_a_new_column_is_null_in_older_days_and_a_retyped_one_is_refused(lake: Lake) -> None:
    lake.replace("raw/t", rows(*DAYS[:2]), DAYS[:2])
    lake.replace("raw/t", rows(D1).with_columns(extra=pl.lit(2.0)), [D1])
    assert lake.scan("raw/t").sort("known_date").collect()["extra"].to_list() == [2.0, None]
    with pytest.raises(StateError, match=r"raw/t in .*: value is Float64 instead of Int64\. .* delete that folder"):
        lake.replace("raw/t", rows(D1).with_columns(value=pl.lit(1.7)), [D1])
    assert lake.count("raw/t") == 2


Step = tuple[str, list[int], int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "clear", "extra", "forget"]),
        st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
        st.integers(0, 99),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_what_is_kept_between_reads_is_what_stands_in_the_table(steps: list[Step]) -> None:
    """Another process writes, widens, clears, and deletes the whole table; both ways of reading see it at once."""
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/a lake"
        writer, reader = Lake(root), Lake(root)
        for what, places, value in steps:
            days = sorted(DAYS[n] for n in places)
            if what == "forget":
                shutil.rmtree(f"{root}/raw/t", ignore_errors=True)
            new = rows(*([] if what == "clear" else days), value=value)
            new = new.with_columns(extra=pl.lit(0.5)) if what == "extra" else new
            writer.replace("raw/t", new, days)
            wanted = DeltaTable(f"{root}/raw/t").to_pyarrow_table()
            for first, last in ((None, None), (DAYS[1], DAYS[3]), (days[0], None)):
                inside = pl.DataFrame(wanted).filter(
                    (pl.col("known_date") >= (first or DAYS[0])) & (pl.col("known_date") <= (last or DAYS[-1]))
                )
                for found in (
                    reader.read("raw/t", first=first, last=last),
                    reader.scan("raw/t", first=first, last=last).collect(),
                ):
                    assert_frame_equal(found, inside, check_row_order=False)


def test_a_frame_that_was_made_stays_as_of_its_version(lake: Lake) -> None:
    lake.replace("raw/t", rows(D1, value=1), [D1])
    before = lake.scan("raw/t")
    lake.replace("raw/t", rows(D1, value=2), [D1])
    assert before.collect()["value"].to_list() == [1]
    assert lake.read("raw/t")["value"].to_list() == [2]


def test_rows_are_kept_up_to_a_limit_those_used_longest_ago_dropped_first() -> None:
    frame = pl.DataFrame({"value": [0] * 100})
    kept, read = KeptRows(most_bytes=5 * int(frame.estimated_size())), list[str]()

    def reading(name: str, rows: pl.DataFrame = frame) -> pl.DataFrame:
        def from_disk() -> pl.DataFrame:
            read.append(name)
            return rows

        return kept.rows(name, from_disk)

    for name in "abcdeafab":
        reading(name)
    assert "".join(read) == "abcdefb"
    for _ in "12":
        reading("B", pl.DataFrame({"value": [0] * 1000}))  # too big to be kept
    reading("a")
    assert "".join(read) == "abcdefbBB"


def test_a_lake_travels_to_another_process_without_what_it_keeps(lake: Lake) -> None:
    lake.replace("raw/t", rows(D1), [D1])
    lake.read("raw/t")
    there = pickle.loads(pickle.dumps(lake))
    assert there == lake
    assert there.read("raw/t").equals(lake.read("raw/t"))


def test_a_table_that_was_never_written_says_what_to_do(lake: Lake) -> None:
    assert lake.days("raw/no") == set()
    assert lake.count("raw/no") == 0
    for ask in (lake.version, lambda name: lake.scan(name).collect()):
        with pytest.raises(MissingHistory, match=r"raw/no was never written .* materialize its asset first"):
            ask("raw/no")


def _write_each(root: str, days: list[date], value: int, start: Barrier) -> None:
    start.wait(timeout=60)
    for day in days:
        Lake(root).replace("raw/t", rows(day, value=value), [day])


def test_two_processes_write_different_days_of_a_new_table_at_once(lake: Lake) -> None:
    days = [D1 + timedelta(days=n) for n in range(24)]
    spawn = mp.get_context("spawn")
    start = spawn.Barrier(2)
    writers = [
        spawn.Process(target=_write_each, args=(lake.root, days[part::2], part, start), daemon=True) for part in (0, 1)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert content(lake) == {day: [n % 2] for n, day in enumerate(days)}
