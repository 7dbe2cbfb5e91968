"""What forgetting does where production keeps it: tables and model files in a bucket, texts and runs in Postgres."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from dagster._core.instance.types import InstanceType
from dagster._daemon.types import DaemonHeartbeat
from dagster._time import get_current_timestamp

from ml_platform.automation.at_work import at_work
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.forgetting.rest import Search
from ml_platform.resources.profiles import Profile
from ml_platform.spec import MissingHistory
from ml_platform.spec.entities import EntityValue
from ml_platform.stores.artifacts import Artifacts
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.delta_purge import first_readable, look, purge, table_names
from ml_platform.stores.text_databases import TextDatabase
from ml_platform.stores.texts import Words

GONE, DAYS = "N784JB", [date(2024, 3, 8), date(2024, 3, 9)]
WORDS = Words(entity="tail", text=GONE, ids=frozenset(), names=frozenset(), token="forgotten-0a1b2c")


def _gone(names: Any) -> pl.Expr | None:
    return pl.col("tail") == GONE if "tail" in set(names) else None


def _stored(profile: Profile, table: str) -> bytes:
    """All bytes under a table, past the platform."""
    from ml_platform.resources.production import production_resources

    client = production_resources(profile)["s3"].get_client()
    bucket, _, prefix = f"{profile.lake}/{table}".removeprefix("s3://").partition("/")
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]]
    return b"".join(client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys)


def test_rows_go_from_a_table_in_a_bucket(production: Profile) -> None:
    lake = Lake(production.lake, production.storage_options)
    assert table_names(lake) == []
    rows = pl.DataFrame({"tail": [GONE, "N1", GONE, "N2"], PARTITION: [*DAYS, *DAYS]})
    lake.replace("raw/flights", rows, DAYS)
    lake.replace("raw/flights", rows.filter(pl.col("tail") != GONE).vstack(rows[:1]), DAYS)
    lake.replace("raw/others", pl.DataFrame({"x": [1], PARTITION: DAYS[:1]}), DAYS[:1])
    texts = {"tail": frozenset([GONE])}
    assert table_names(lake) == ["raw/flights", "raw/others"]
    assert GONE.encode() in _stored(production, "raw/flights")
    found = look(lake, "raw/flights", _gone, texts)
    assert (found.rows, found.old_files, found.in_log) == (1, 1, True)
    search = Search(entity=EntityValue(name="tail", text=GONE), words=WORDS, entities=frozenset(["tail"]))
    assert [left.place for left in search.tables(lake)] == ["raw/flights"]

    version = purge(lake, "raw/flights", _gone)
    assert first_readable(lake, "raw/flights") == lake.version("raw/flights") == version
    assert GONE.encode() not in _stored(production, "raw/flights")
    assert not look(lake, "raw/flights", _gone, texts).holds
    assert list(search.tables(lake)) == []
    assert sorted(lake.scan("raw/flights").collect()["tail"]) == ["N1", "N2"]
    assert (first_readable(lake, "raw/others"), lake.count("raw/others")) == (0, 1)
    with pytest.raises(MissingHistory, match="an entity was forgotten, and version 1 of raw/flights went with it"):
        lake.scan("raw/flights", version=1)


def test_files_of_models_in_a_bucket_are_read_and_exchanged(production: Profile) -> None:
    files = Artifacts(f"{production.lake}-models")
    assert (files.folder, list(files.paths())) == (None, [])
    for path in ("late/m-1/schema.json", "late/run/evaluation/page.html"):
        files.write(path, b"first")
        files.write(path, b"second")
    assert sorted(files.paths()) == ["late/m-1/schema.json", "late/run/evaluation/page.html"]
    assert files.read("late/m-1/schema.json") == b"second"


@pytest.mark.service("postgres")
def test_texts_in_postgres_are_exchanged(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE events (id SERIAL PRIMARY KEY, body TEXT, at TIMESTAMP, size BIGINT)"))
        values = [{"body": f"{n}: {GONE if n % 2 else 'else'}"} for n in range(5)]
        connection.execute(sa.text("INSERT INTO events (body, at, size) VALUES (:body, now(), 7)"), values)
    database = TextDatabase(postgres_url)
    assert database.path is None
    assert database.holding(WORDS) == {"events": 2}
    database.replace(WORDS)
    assert database.holding(WORDS) == {}
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT body, size FROM events ORDER BY id")).fetchall()
    engine.dispose()
    assert rows == [(f"{n}: {'forgotten-0a1b2c' if n % 2 else 'else'}", 7) for n in range(5)]


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres", marks=pytest.mark.service("postgres"))])
def test_a_daemon_that_lives_and_runs_that_go_on_are_named(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if where == "postgres" else None
    assert at_work(tmp_path / "home", None, replayed=False) == []
    write_dagster_yaml(tmp_path / "home", replayed=False, postgres_url=url)
    with open_instance(tmp_path / "home") as instance:
        assert instance._instance_type is InstanceType.PERSISTENT
        assert at_work(tmp_path / "home", url, replayed=False) == []
        now = get_current_timestamp()
        instance.add_daemon_heartbeat(DaemonHeartbeat(now - 90, "ASSET", "a", []))
        assert at_work(tmp_path / "home", url, replayed=False) == []
        instance.add_daemon_heartbeat(DaemonHeartbeat(now - 7, "SENSOR", "a", []))
        (said,) = at_work(tmp_path / "home", url, replayed=False)
        assert "a Dagster daemon (" in said
        instance.add_daemon_heartbeat(DaemonHeartbeat(now - 90, "SENSOR", "a", []))
        from dagster import DagsterRunStatus

        run = instance.create_run_for_job(_job(), status=DagsterRunStatus.STARTED)
        (said,) = at_work(tmp_path / "home", url, replayed=False)
        assert f"Dagster's run {run.run_id} (started; end it in the UI if nothing runs it)" == said
        instance.report_run_canceled(run)
        assert at_work(tmp_path / "home", url, replayed=False) == []


def _job() -> Any:
    import dagster as dg

    @dg.job
    def nothing() -> None: ...

    return nothing
