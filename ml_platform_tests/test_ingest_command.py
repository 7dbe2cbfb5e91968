"""`ml-platform ingest` in the embedded profile: lines of JSON into the live features, and what it says of bad ones."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.features.live import LiveViews
from ml_platform.resources.projects import load_project
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles import SqliteTiles

PROJECT = "ml_platform_tests.trips"
NOON = datetime(2024, 3, 1, 17, tzinfo=UTC)
Ingest = Callable[..., Result]


@pytest.fixture
def ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_PROJECT", PROJECT)

    def run(*arguments: str, text: str = "") -> Result:
        return CliRunner().invoke(main, ["ingest", *arguments], input=text)

    return run


def ended(n: int, **other: Any) -> dict[str, Any]:
    known = NOON - timedelta(minutes=n)
    return {"trip": f"t{n}", "line": "A", "minutes_late": n, "known_at": known.isoformat(), **other}


def lines(*rows: Any) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def served(home: Path, line: str = "A") -> dict[str, Any]:
    live = LiveViews(load_project(PROJECT).views.values(), SqliteTiles(home / "live.db"))
    return live.values([("line_past", (line,))], NOON)[0]


def test_rows_of_a_file_count_at_once(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_text(lines(*(ended(n) for n in range(1, 8))))
    done = ingest("ended", str(path), "--batch", "3")
    assert (done.exit_code, done.output) == (0, "ended: 7 applied, 0 set aside, 0 refused\n")
    values = served(tmp_path / "home")
    assert (values["minutes_late_count_6h"], values["minutes_late_mean_6h"]) == (7, 4.0)
    assert ingest("ended", str(path), "--batch", "1").exit_code == 0
    assert served(tmp_path / "home") == values


def test_a_stored_value_is_replaced(ingest: Ingest, tmp_path: Path) -> None:
    row = {
        "trip": "t1",
        "line": "A",
        "miles": 3,
        "leaves": NOON.isoformat(),
        "known_at": (NOON - timedelta(days=2)).isoformat(),
    }
    assert ingest("asked", "-", text=lines(row)).exit_code == 0
    project = load_project(PROJECT)
    online = OnlineStore(tmp_path / "home" / "feast_online.db", project.name)
    assert online.read(project.views["planned"], [("t1",)]) == [{"miles": 3.0}]


LEFT_OUT = (
    r"line 10, column 'known_at': '2999-01-01T00:00:00Z' lies outside 2024-02-26T05:00:00\+00:00 to .*: refused",
    r"line 2: set aside, line_not_null",
    r"line 3, column 'minutes_late': '3' is not of the type Int64: refused",
    r"line 5, column 'trip': is null; an event needs its key and its time: refused",
    r"line 6: unknown tip; the columns are trip, line, minutes_late, known_at: refused",
    r"line 8: is no JSON \(.*\): refused",
    r"line 9: is no JSON object, but '\[1\]': refused",
)


def test_rows_left_out_are_named_with_line_column_and_reason(ingest: Ingest, tmp_path: Path) -> None:
    rows = [ended(1), ended(2, line=None), ended(3, minutes_late="3"), ended(4), ended(5, trip=None), ended(6, tip=1)]
    text = lines(*rows) + "\n{\n" + lines([1], ended(7, known_at="2999-01-01T00:00:00Z"), ended(8))
    for batch in ("1", "500"):
        done = ingest("ended", "--batch", batch, text=text)
        assert done.exit_code == 1
        *said, last = done.output.splitlines()
        assert last == "ended: 3 applied, 1 set aside, 6 refused"
        for sentence, wanted in zip(sorted(said), LEFT_OUT, strict=True):
            assert re.fullmatch(wanted, sentence), sentence
        assert served(tmp_path / "home")["minutes_late_count_6h"] == 3


@pytest.mark.parametrize("value", ["1e300", "NaN", "1e999"])
def test_a_number_that_no_window_can_hold_is_refused(ingest: Ingest, value: str) -> None:
    row = lines({"trip": "t", "line": "A", "miles": 0, "leaves": NOON.isoformat(), "known_at": NOON.isoformat()})
    done = ingest("asked", text=row.replace('"miles": 0', f'"miles": {value}'))
    assert (done.exit_code, done.output.splitlines()[-1]) == (1, "asked: 0 applied, 0 set aside, 1 refused")


def test_wrong_names_and_profiles_are_said_with_their_cure(ingest: Ingest, tmp_path: Path) -> None:
    unknown = ingest("endid", text="")
    assert unknown.exit_code == 1
    assert "there is no table of events named 'endid'; did you mean ended?" in unknown.stderr
    assert ingest("ended", str(tmp_path / "absent")).exit_code == 2
    consumed = CliRunner().invoke(main, ["consume"])
    assert consumed.exit_code == 1
    assert "the profile embedded has no stream of events; `ml-platform ingest` applies them directly" in consumed.stderr
