"""The production profile against real services: an S3 on loopback (moto's server) and a Postgres of the machine."""

import json
import os
import shutil
import sys
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import sqlalchemy
from dagster_aws.s3 import S3Resource
from deltalake import write_deltalake
from polars.testing import assert_frame_equal

from ml_platform.automation.instance import write_dagster_yaml
from ml_platform.resources.production import bucket_of, production_resources
from ml_platform.resources.profiles import Profile
from ml_platform.spec import DeclarationError, MissingHistory
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.tracking import Tracking
from ml_platform_tests.production_world import BUCKET

ROOT = Path(__file__).parent.parent


@dg.asset
def small() -> dg.MaterializeResult:
    sys.stdout.write("a line for the compute log\n")
    sys.stdout.flush()
    return dg.MaterializeResult(metadata={"rows": 3})


def test_a_lake_in_a_bucket_keeps_its_promises(production):
    lake = Lake(production.lake, production.storage_options)
    first, second = date(2013, 4, 1), date(2013, 4, 2)
    rows = pl.DataFrame({"flight_id": ["a", "b", "c"], PARTITION: [first, first, second]})
    assert not lake.exists("raw/flights")
    with pytest.raises(MissingHistory, match="raw/flights"):
        lake.version("raw/flights")

    lake.replace("raw/flights", rows, [first, second])
    again = pl.DataFrame({"flight_id": ["z"], PARTITION: [first]})
    lake.replace("raw/flights", again, [first])
    lake.replace("raw/flights", again, [first])

    expected = pl.concat([rows.filter(pl.col(PARTITION) == second), again])
    assert_frame_equal(lake.scan("raw/flights").collect(), expected, check_row_order=False)
    assert_frame_equal(lake.read("raw/flights"), expected, check_row_order=False)
    assert lake.days("raw/flights") == {first, second}
    assert lake.scan("raw/flights", first=second).collect()["flight_id"].to_list() == ["c"]


def test_a_feast_table_in_a_bucket(production, tmp_path):
    """Read, saved and appended to; the options come from feature_store.yaml."""
    import pandas as pd
    from feast import FeatureStore

    from ml_platform.features.feast_source import DeltaSource, SavedDatasetDeltaStorage
    from ml_platform_tests.feast_world import LINES, NOON, STORE, declared, line_rows

    table = f"{production.lake}/lines"
    write_deltalake(
        table, pl.DataFrame(line_rows(1), LINES).to_arrow(), storage_options=dict(production.storage_options)
    )
    options = json.dumps(dict(production.storage_options))
    yaml = STORE.format(knowledge_time="true").replace("true\n", f"true\n  storage_options: {options}\n")
    (tmp_path / "feature_store.yaml").write_text(yaml)
    store = FeatureStore(str(tmp_path))
    line, city, view, *_ = declared()
    view.batch_source = DeltaSource(path=table, timestamp_field="at", created_timestamp_column="known_at")
    store.apply([line, city, view])
    asked = pd.DataFrame({"line": [1, 2], "city": "a", "event_timestamp": [NOON, NOON + timedelta(hours=20)]})
    job = store.get_historical_features(asked, ["line_state:trips"])
    saved = store.create_saved_dataset(job, "saved", SavedDatasetDeltaStorage(f"{production.lake}/saved"))
    assert saved.to_df()["trips"].dropna().tolist() == job.to_df()["trips"].dropna().tolist() != []
    store.write_to_offline_store("line_state", pd.DataFrame(line_rows(2, 5)))
    assert view.batch_source.address(store.config).open().version() == 1


def test_the_s3_resource_puts_and_gets_in_the_lake_bucket(production):
    bucket = bucket_of(production)
    assert bucket == BUCKET

    @dg.asset
    def page(s3: S3Resource) -> None:
        s3.get_client().put_object(Bucket=bucket, Key="reports/page.html", Body=b"<p>ok</p>")

    resources = production_resources(production)
    assert dg.materialize([page], resources=resources, instance=dg.DagsterInstance.ephemeral()).success
    got = resources["s3"].get_client().get_object(Bucket=bucket, Key="reports/page.html")
    assert got["Body"].read() == b"<p>ok</p>"


def test_the_embedded_profile_has_no_bucket(tmp_path):
    assert bucket_of(Profile.at(tmp_path)) is None
    assert production_resources(Profile.at(tmp_path)) == {}


def test_a_lake_elsewhere_than_s3_is_refused(production, monkeypatch):
    monkeypatch.setenv("ML_PLATFORM_LAKE", "gs://bucket/lake")
    with pytest.raises(DeclarationError, match="s3://bucket/prefix"):
        bucket_of(Profile.from_environment())


def written_by_the_platform(folder: Path, postgres_url: str) -> None:
    plain_url = postgres_url.replace("+psycopg2", "")
    write_dagster_yaml(folder, replayed=False, postgres_url=plain_url, s3_bucket=BUCKET)


def written_by_hand(folder: Path, postgres_url: str) -> None:
    shutil.copy(ROOT / "deploy" / "dagster.yaml", folder)
    os.environ["ML_PLATFORM_POSTGRES_URL"] = postgres_url


@pytest.mark.service("postgres")
@pytest.mark.parametrize("write", [written_by_the_platform, written_by_hand])
def test_a_run_lands_in_postgres_and_its_compute_logs_in_the_bucket(production, postgres_url, tmp_path, write):
    write(tmp_path, postgres_url)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        done = dg.materialize([small], instance=instance)
        assert done.success
    # A second handle: what it knows came from the database.
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("small"))
        assert event is not None
        assert event.run_id == done.run_id
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        runs = connection.execute(sqlalchemy.text("SELECT run_id, status FROM runs")).all()
    engine.dispose()
    assert [tuple(run) for run in runs] == [(done.run_id, "SUCCESS")]

    client = production_resources(production)["s3"].get_client()
    logs = [found["Key"] for found in client.list_objects_v2(Bucket=BUCKET)["Contents"] if done.run_id in found["Key"]]
    out = [key for key in logs if key.endswith(".out")]
    assert len(out) == 1
    assert b"a line for the compute log" in client.get_object(Bucket=BUCKET, Key=out[0])["Body"].read()


@pytest.mark.service("postgres")
def test_a_model_version_lives_in_postgres_and_its_files_in_the_bucket(production, postgres_url, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.txt").write_text("a tree")
    tracking = Tracking(postgres_url, production.mlflow_artifacts)
    made = tracking.register(
        "delay", folder, estimator="lightgbm", run_name="first", parameters={}, metrics={"auc": 0.75}, tags={}
    )
    tracking.promote("delay", made.version)

    elsewhere = Tracking(postgres_url, production.mlflow_artifacts)
    champion = elsewhere.champion("delay")
    assert champion.version == made.version
    assert champion.folder_uri.startswith(f"s3://{BUCKET}/mlflow/delay/")
    assert (elsewhere.download(champion, tmp_path / "copy") / "model.txt").read_text() == "a tree"
