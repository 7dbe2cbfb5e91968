"""`ml-platform forget` on a project that was served for days: everything of one entity goes, and nothing else does."""

import json
import os
import re
import signal
import sqlite3
import zipfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.features.follow import followed
from ml_platform.resources.projects import load_project
from ml_platform.spec import MissingHistory
from ml_platform.stores.delta import PARTITION
from ml_platform.stores.forgettings import gone
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.tiles import SqliteTiles
from ml_platform.stores.tracking import Tracking
from ml_platform_tests.forget_world import files_of, forget, places_of, records_of, tables_of, versions_of
from ml_platform_tests.replay_world import PACKAGE, TripsHome, midnight_after
from ml_platform_tests.trips.world import SHIFTS_ON

SERVED = "20240308-40"  # asked about and ended on the eve: its event stands in a window
TRAINED = "20240302-10"  # the first model learned from it
LAST = SHIFTS_ON - timedelta(days=1)


def _line(home: TripsHome, trip: str) -> str:
    rows = home.lake.scan("raw/asked").filter(pl.col("trip") == trip).collect()
    return str(rows["line"].item())


def _windows(home: TripsHome, line: str) -> dict[str, Any]:
    live = followed(load_project(PACKAGE), SqliteTiles(home.profile.live_path), lambda: midnight_after(LAST))
    return live.values([("line_past", (line,))], midnight_after(LAST))[0]


def _mention(home: TripsHome, trip: str, line: str) -> None:
    """Where people and machines leave names: a page, a log, the ledger, Dagster's events, MLflow's tags, quarantine."""
    (home.profile.reports_path / "note.html").write_text(f"<p>{trip} was late; 9{trip}9 is another</p>")
    with (home.profile.log_path / "service-desk.txt").open("a") as log:
        log.write(f"refused: trip={trip}, line={line}\n")
    ledger = Ledger(home.profile.ledger_path)
    ledger.write(
        "skew",
        "desk",
        "an older line",
        datetime(2024, 3, 7, tzinfo=UTC),
        {"reason": f"2 differ; for example {trip} was served 3"},
    )
    said = {"version": "1", "by": "ann", "override": False, "gate": 2, "champion": None}
    for key, reason in (("names", f"trip {trip} looked fine"), ("names none", "all looked fine")):
        ledger.write("approval", "late", key, datetime(2024, 3, 7, tzinfo=UTC), {**said, "reason": reason})
    write_dagster_yaml(home.profile.dagster_home, replayed=True)  # a copied folder's names the one that it came from
    with open_instance(home.profile.dagster_home) as instance:
        told = {"reason": f"for example trip={trip}", "rows": dg.MetadataValue.json({"trip": trip, "line": "Z"})}
        instance.report_runless_asset_event(dg.AssetMaterialization("raw/asked", metadata=told))
    tracking = Tracking(home.profile.mlflow_uri, home.profile.mlflow_artifacts)
    tracking.tag(tracking.version("late", 1), {"remark": f"wrong on {trip}"})
    rows = home.lake.scan("raw/ended").filter(pl.col(PARTITION) == LAST).collect()
    bad = rows.head(2).with_columns(trip=pl.Series([trip, "20240308-00"]), reason=pl.lit("line_not_null"))
    home.lake.replace("quarantine/ended", bad, [LAST])
    twice = pl.concat([rows, rows.filter(pl.col("trip") == trip)])
    home.lake.replace("raw/ended", twice, [LAST])  # a version that is replaced at once, and stays on the disk
    home.lake.replace("raw/ended", rows, [LAST])


def test_every_byte_of_an_entity_goes_and_nothing_of_others(home: TripsHome) -> None:
    line = _line(home, SERVED)
    _mention(home, SERVED, line)
    tables, versions, windows = tables_of(home), versions_of(home), _windows(home, line)
    logs = {stream: records_of(home, stream) for stream in ("predictions", "labels")}
    assert len(places_of(home.path, SERVED)) > 15
    kept = home.profile.checkpoints_path / "late" / "checkpoint.npz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"a network half trained on all rows")
    backtest = home.profile.backtest_path / "version"
    backtest.mkdir(parents=True)
    (backtest / "told.json").write_text(f'"{SERVED}"')
    before = files_of(home.path)

    listed = forget(home, f"trip={SERVED}")
    assert listed.code == 0
    assert files_of(home.path) == before  # listing changed nothing
    for said in (
        "raw/ended: 1 row (and 2 files of earlier versions",
        "quarantine/ended: 1 row",
        "log/predictions/desk: 1",
    ):
        assert said in listed.said, listed.said
    for said in (
        "online store: 1 key",
        "2 tiles with events",  # one of its window, one that remembers the fact
        "reports/note.html",
        "event_log.db",
        "mlflow.db",
        "ledger.db: 1 line naming it",
    ):
        assert said in listed.said, listed.said

    done = forget(home, f"trip={SERVED}", "--yes")
    assert done.code == 0, done.said
    assert not kept.exists()
    assert not backtest.exists()
    assert [place for place in places_of(home.path, SERVED) if "note.html" not in place] == []
    assert f"9{SERVED}9 is another" in (home.profile.reports_path / "note.html").read_text()

    assert Ledger(home.profile.ledger_path).verify().passed
    named, other = home.ledger("approval", "late")
    assert (named.redacted, other.redacted, other.body["reason"]) == (("reason",), (), "all looked fine")
    assert [line.body["line"] for line in home.ledger("redaction", "late")] == [named.number]

    after = tables_of(home)
    ids = ("trip", "prediction_id")
    for name, rows in tables.items():
        of_others = rows.filter(*(pl.col(column) != SERVED for column in ids if column in rows.columns))
        assert after[name].equals(of_others), name
        assert after[name].schema == rows.schema
    assert sum(rows.height - after[name].height for name, rows in tables.items()) == 7
    for stream, records in logs.items():
        assert records_of(home, stream) == [record for record in records if record["id"] != SERVED]
    assert all(version >= versions[name] for name, version in versions_of(home).items())
    assert _windows(home, line)["minutes_late_count_1d"] == windows["minutes_late_count_1d"] - 1
    with closing(sqlite3.connect(home.profile.online_path)) as db:
        (left,) = db.execute("SELECT count(DISTINCT entity_key) FROM trips_planned").fetchone()
    assert left > 100

    again = forget(home, f"trip={SERVED}", "--yes")
    assert (again.code, again.said) == (0, f"nothing in {home.path} holds trip={SERVED}\n")


@pytest.mark.long
def test_the_loop_goes_on_with_nothing_that_differs_and_lets_nothing_in_again(home: TripsHome) -> None:
    on_its_way = "20240309-30"  # planned, not asked about yet
    sitting = home.start("run", "--until", str(SHIFTS_ON))
    sitting.until(lambda: home.clock() >= midnight_after(LAST) + timedelta(hours=15))
    os.kill(sitting.process.pid, signal.SIGSTOP)  # or the day would be over before it is refused
    refused = home.refused("forget", f"trip={SERVED}", "--yes").said
    assert f"is in use by `ml-platform run` (process {sitting.process.pid}); wait for it, stop it" in refused
    sitting.kill()  # in the middle of a day: its events are in the windows and not in the lake
    assert sitting.service_ended()
    answered = {record["id"] for record in records_of(home, "predictions")}
    today = sorted(name for name in answered if name.startswith("20240309-0"))[-1]
    for trip in (today, SERVED, on_its_way):
        done = forget(home, f"trip={trip}", "--yes")
        assert done.code == 0, done.said
        assert places_of(home.path, trip) == []

    summary = home.run(SHIFTS_ON)
    assert summary["values_mismatched"] == 0
    assert summary["failures"] == []
    for trip in (today, SERVED, on_its_way):
        assert places_of(home.path, trip) == []
    assert summary["predictions"] > len(answered)
    compared = home.ledger("skew", "desk")[-1]
    assert compared.body["days"] == "2024-03-09..2024-03-09"
    assert "were given before an entity was forgotten and are not compared" in compared.body["reason"]
    assert 0 < compared.body["compared"] < 5 * home.table("predictions/desk", SHIFTS_ON).height

    # Materialized again, the sources' rows balance with those that were left out.
    with open_instance(home.profile.dagster_home) as instance:
        told = _checks(home, instance)
    assert told["rows_forgotten"] == 2  # of the day: one that had ended, one planned
    assert told["rows_source"] == told["rows_raw"] + told["rows_quarantined"] + told["rows_forgotten"]


def _checks(home: TripsHome, instance: dg.DagsterInstance) -> dict[str, int]:
    from ml_platform.definitions import house

    job = house(home.profile, clamp=False).resolve_implicit_global_asset_job_def()
    made = job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey(["raw", "ended"])], partition_key=str(SHIFTS_ON)
    )
    (lost,) = [e for e in made.get_asset_check_evaluations() if e.check_name == "nothing_lost"]
    assert lost.passed, lost.description
    assert "left out because they hold what was forgotten" in (lost.description or "")
    return {name: int(value.value) for name, value in lost.metadata.items() if name.startswith("rows")}  # type: ignore[arg-type]


@pytest.mark.long
def test_models_that_learned_from_it_are_marked_and_what_is_gone_is_on_record(home: TripsHome) -> None:
    _older_version_of_the_training_set(home)
    before = versions_of(home)
    done = forget(home, f"trip={TRAINED}", "--yes")
    assert done.code == 0, done.said
    assert "models/late: 1 row of its training set (version 1)" in done.said

    version = Tracking(home.profile.mlflow_uri, home.profile.mlflow_artifacts).version("late", 1)
    assert version.tags["forgotten_rows"] == "1"
    assert datetime.fromisoformat(version.tags["forgotten_at"]) == home.clock()
    (line,) = home.ledger("forgetting", "trips")
    digest = forgotten_in(home.path).digest("trip", TRAINED)
    assert (line.body["entity"], line.body["digest"], line.body["remains"]) == ("trip", digest, [])
    assert line.body["models"] == {"late": {"1": 1}}
    assert TRAINED not in json.dumps(dict(line.body))

    tables = {"raw/asked", "raw/ended", "features/planned", "training_sets/late"}
    assert all(f"  {table}: " in done.said for table in tables)
    record = gone(Ledger(home.profile.ledger_path), "trips")
    assert record.rows == {"late": {1: 1}}
    for table, version_before in before.items():
        touched = table in record.readable_from
        assert touched == (f"  {table}: " in done.said), table
        assert (record.why_not(table, version_before) is not None) == touched
        assert record.why_not(table, home.lake.version(table)) is None
    with pytest.raises(MissingHistory, match=r"an entity was forgotten, and version 1 of training_sets/late went with"):
        home.lake.scan("training_sets/late", version=1)
    cannot = home.refused("reproduce", "late", "1")
    assert (
        "late version 1: cannot, because an entity was forgotten: 1 of the rows it was made of are gone" in cannot.said
    )
    done = home.start("vacuum", "--older-than", "0").wait()  # it does not look for the versions that are gone
    assert done.code == 0, done.said

    # Of another one the training set's version is gone; what is left of its time says how many rows there were at most.
    other = "20240302-11"
    assert forget(home, f"trip={other}", "--yes").code == 0
    version = Tracking(home.profile.mlflow_uri, home.profile.mlflow_artifacts).version("late", 1)
    assert version.tags["forgotten_rows"] == "2"


def _older_version_of_the_training_set(home: TripsHome) -> None:
    """The set that the model was trained on is replaced, so that only its version holds the rows."""
    rows = home.lake.scan("training_sets/late").collect()
    assert rows.filter(pl.col("trip") == TRAINED).height == 1
    home.lake.replace("training_sets/late", rows.filter(~pl.col("trip").is_in([TRAINED, "20240302-11"])), None)


@pytest.mark.long
def test_a_level_of_a_model_goes_and_its_answers_to_others_stay(home: TripsHome) -> None:
    from ml_platform.training.estimators import load

    tracking = Tracking(home.profile.mlflow_uri, home.profile.mlflow_artifacts)
    folder = tracking.download(tracking.version("late", 1), home.path)
    rows = home.lake.scan("training_sets/late").filter(pl.col("line") != "B").collect().sort("trip")
    answers = load(folder).predict(rows)
    done = forget(home, "line=B", "--yes")
    assert done.code == 0, done.said
    assert "'B' cannot be told from other words" in done.said
    schema = json.loads((folder / "schema.json").read_text())
    levels = schema["encoding"]["categories"]["line"]
    assert (len(levels), "B" in levels) == (5, False)
    assert (load(folder).predict(rows) == answers).all()
    for name, table in tables_of(home).items():
        assert "line" not in table.columns or (table["line"] != "B").all(), name
    assert {json.loads(text)["line"] for text in tables_of(home)["predictions/desk"]["entities"]} == set("ACDE")
    assert _windows(home, "B")["minutes_late_count_1d"] == 0
    assert home.run(SHIFTS_ON)["values_mismatched"] == 0
    assert (tables_of(home)["raw/ended"]["line"] != "B").all()


def test_what_cannot_be_removed_is_named_and_the_command_fails(home: TripsHome) -> None:
    with zipfile.ZipFile(
        home.path / "mlflow" / "artifacts" / "late" / "weights.pt2", "w", zipfile.ZIP_DEFLATED
    ) as file:
        file.writestr("data", b"\x00\x01" + SERVED.encode() + b"\xff")
    done = forget(home, f"trip={SERVED}", "--yes")
    assert done.code == 1
    assert (
        "what remains, since it could not be removed:\n  mlflow/artifacts/late/weights.pt2, data: its bytes"
        in done.said
    )
    assert home.ledger("forgetting", "trips")[0].body["remains"] == [
        "mlflow/artifacts/late/weights.pt2, data: its bytes hold it"
    ]
    assert home.run(LAST)["values_mismatched"] == 0  # it has ended all the same


@pytest.mark.long
def test_a_service_that_runs_keeps_it_out_and_is_named(home: TripsHome) -> None:
    sitting = home.start("serve", "--port", "0")
    try:
        sitting.until(lambda: "answers on" in sitting.said())
        refused = home.refused("forget", f"trip={SERVED}", "--yes").said
        assert re.search(r"is in use by `ml-platform serve desk` \(process \d+\); end it first, and try again", refused)
        assert "raw/ended: 1 row" in forget(home, f"trip={SERVED}").said  # looking is no harm
        assert places_of(home.path, SERVED) != []
    finally:
        sitting.interrupt()
    assert forget(home, f"trip={SERVED}", "--yes").code == 0


def test_what_is_asked_wrongly_is_told_and_changes_nothing(home: TripsHome, tmp_path: Path) -> None:
    before = files_of(home.path)
    for written in ("trip", "trip=", "=x"):
        wrong = home.refused("forget", written, "--yes")
        assert (wrong.code, "is not written as <entity>=<value>" in wrong.said) == (2, True)
    unknown = home.refused("forget", "tripp=20240308-40", "--yes")
    assert (unknown.code, "there is no entity named 'tripp'; did you mean trip" in unknown.said) == (1, True)
    for arguments in (["trip=20240308-99"], ["trip=20240308-99", "--yes"]):
        nobody = forget(home, *arguments)
        assert (nobody.code, nobody.said) == (0, f"nothing in {home.path} holds trip=20240308-99\n")
    after = files_of(home.path)
    changed = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    # Whether a daemon lives is asked of Dagster's own state, which takes note of being opened.
    assert {name for name in changed if not name.startswith("dagster/")} <= {"lock"}
    fresh = TripsHome(tmp_path / "never made")
    assert forget(fresh, "trip=20240308-40", "--yes").said == f"nothing in {fresh.path} holds trip=20240308-40\n"
    assert not fresh.path.exists()
