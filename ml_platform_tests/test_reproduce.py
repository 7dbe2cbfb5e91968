"""Versions made again from their manifests by the real command, in processes of their own."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from ml_platform.spec import ModelRefused
from ml_platform.spec.manifests import Environment, RunManifest
from ml_platform.stores.delta import PARTITION
from ml_platform.stores.tracking import Tracking
from ml_platform.training.manifest import MANIFEST_FILE, code_version, environment, read_manifest
from ml_platform.training.upkeep import pinned
from ml_platform_tests.replay_world import PACKAGE, Done, TripsHome, folder_of_the_run, shifted

pytestmark = pytest.mark.long


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> TripsHome:
    """A replayed state with several versions, to do anything to."""
    return shifted(folder_of_the_run(tmp_path_factory.getbasetemp())).copy(tmp_path / "home")


def tracking(home: TripsHome) -> Tracking:
    return Tracking(home.profile.mlflow_uri, home.profile.mlflow_artifacts)


def said(home: TripsHome, *arguments: str) -> Done:
    return home.start(*arguments).wait()


def manifest(home: TripsHome, version: int) -> RunManifest:
    return read_manifest(folder(home, version))


def folder(home: TripsHome, version: int) -> Path:
    found = tracking(home)
    return found.download(found.version("late", version), home.path / "files")


def rewritten(home: TripsHome, table: str) -> None:
    """Every day written twice more in halves and put together: other files, the same rows."""
    days = sorted(home.lake.days(table))
    rows = home.lake.read(table)
    home.lake.replace(table, rows, days)
    for day in days[:3]:
        part = rows.filter(pl.col(PARTITION) == day)
        home.lake.replace(table, part[: part.height // 2], [day])
        # a second file of the day, as another writer would append it
        part[part.height // 2 :].write_delta(home.lake.uri(table), mode="append")


def test_every_version_comes_out_to_the_bit_also_after_its_tables_were_optimized_and_vacuumed(home: TripsHome) -> None:
    numbers = [found.version for found in tracking(home).versions("late")]
    assert len(numbers) >= 2
    shutil.rmtree(home.path / "lake" / "training_sets")  # nothing cached is used
    pins = pinned(tracking(home))
    assert {"raw/asked", "raw/ended"} <= set(pins)
    for table in ("raw/asked", "raw/ended"):
        rewritten(home, table)
    before = len(list((home.path / "lake").rglob("*.parquet")))
    done = said(home, "vacuum", "--older-than", "0", "--optimize")
    assert done.code == 0, done.said
    assert "files put together" in done.said
    assert "kept for registered models: version " in done.said
    assert len(list((home.path / "lake").rglob("*.parquet"))) < before
    done = said(home, "reproduce", "late", "--json")
    assert done.code == 0, done.said
    found = [json.loads(line) for line in done.said.splitlines() if line.startswith("{")]
    assert [(each["state"], each["version"]) for each in found] == [("bit-identical", number) for number in numbers]
    for each in found:
        rows = sum(manifest(home, each["version"]).training_set.rows.values())
        assert each["reason"].startswith(f"{rows} rows of the same digest")


def test_a_version_whose_files_were_removed_cannot_be_made_and_says_which(home: TripsHome) -> None:
    rewritten(home, "raw/ended")
    DeltaTable(home.lake.uri("raw/ended")).vacuum(
        retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True
    )
    done = home.refused("reproduce", "late", "1")
    version = manifest(home, 1).training_set.tables["raw/ended"].version
    assert f"late version 1: cannot, because version {version} of " in done.said
    assert "raw/ended cannot be read any more" in done.said
    assert "was removed" in done.said


def test_a_table_that_was_made_anew_is_not_taken_for_the_one_trained_on(home: TripsHome) -> None:
    rows, days = home.lake.read("raw/ended"), sorted(home.lake.days("raw/ended"))
    shutil.rmtree(home.path / "lake" / "raw" / "ended")
    wanted = manifest(home, 1).training_set.tables["raw/ended"].version
    while not home.lake.exists("raw/ended") or home.lake.version("raw/ended") < wanted:
        home.lake.replace("raw/ended", rows, days)
    assert "was deleted and made anew" in home.refused("reproduce", "late", "1").said
    shutil.rmtree(home.path / "lake" / "raw" / "ended")
    assert "raw/ended was never written" in home.refused("reproduce", "late", "1").said
    home.lake.replace("raw/ended", rows.clear(), days)  # an empty table, at its first version
    assert f"raw/ended has no version {wanted}" in home.refused("reproduce", "late", "1").said


def test_what_was_tampered_with_is_not_reproduced(home: TripsHome) -> None:
    place = folder(home, 1)
    text = (place / MANIFEST_FILE).read_text()
    (place / MANIFEST_FILE).write_text(text.replace('"seed": ', '"seed": 1'))
    assert "cannot, because the run manifest does not verify" in home.refused("reproduce", "late", "1").said
    (place / MANIFEST_FILE).unlink()
    assert "was registered without one" in home.refused("reproduce", "late", "1").said
    (place / MANIFEST_FILE).write_text(text)
    model = place / "model.txt"
    model.write_text(model.read_text().replace("leaf_value=", "leaf_value=1", 1))
    assert "model.txt is not the file that was saved" in home.refused("reproduce", "late", "1").said


def test_other_parameters_would_be_seen(home: TripsHome) -> None:
    """The verdict is no formality: a manifest of another seed and more rounds of learning gives another model."""
    place, then = folder(home, 1), manifest(home, 1)
    other = replace(then, parameters={**then.parameters, "learning_rate": 0.02})
    (place / MANIFEST_FILE).write_text(other.to_json())
    done = home.refused("reproduce", "late", "1")
    assert "late version 1: different: log-loss on the holdout" in done.said
    close = replace(then, parameters={**then.parameters, "learning_rate": 0.2 + 1e-12})
    (place / MANIFEST_FILE).write_text(close.to_json())
    done = said(home, "reproduce", "late", "1")
    assert done.code == 0, done.said
    assert "metric-identical: within" in done.said


def test_unknown_names_and_tables_are_answered_with_near_ones(home: TripsHome) -> None:
    assert "no registered model named 'lat'; did you mean late" in home.refused("reproduce", "lat", "1").said
    assert "no version of model late named '99'" in home.refused("reproduce", "late", "99").said
    assert "no table of the lake named 'raw/endet'; did you mean raw/ended" in home.refused("vacuum", "raw/endet").said


def test_nothing_is_removed_from_an_empty_state(tmp_path: Path) -> None:
    empty = TripsHome(tmp_path / "none")
    assert "holds no table of trips yet" in empty.refused("vacuum").said


def test_a_manifest_says_code_environment_and_device(home: TripsHome) -> None:
    found = manifest(home, 1)
    assert found.code == code_version([PACKAGE, f"{PACKAGE}.repository"])
    assert found.environment == environment()
    assert {"lightgbm", "polars", "dagster"} <= set(found.environment.packages)
    assert (found.device, found.estimator, found.seed) == ("cpu", "lightgbm", 2013)
    assert RunManifest.from_json(found.to_json()) == found
    (training, *_) = home.ledger("training", "late")
    assert training.body["manifest"] == found.digest


def test_environments_differ_in_any_version() -> None:
    one = Environment.of("3.11.1", "Linux x86_64", {"a": "1", "b": "2"})
    assert one == Environment.of("3.11.1", "Linux x86_64", {"b": "2", "a": "1"})
    assert one.digest != Environment.of("3.11.1", "Linux x86_64", {"a": "1", "b": "3"}).digest
    assert one.digest != Environment.of("3.12.1", "Linux x86_64", {"a": "1", "b": "2"}).digest


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": "x", "manifest": {}}', '{"manifest": null}'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ModelRefused, match="manifest"):
        RunManifest.from_json(text)


def test_code_is_told_apart_by_every_source_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "declared_here"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_version(["declared_here"])
    assert before == code_version(["declared_here"])
    assert (before.commit, before.clean) == (None, None)
    (package / "thing.py").write_text("x = 1\n")
    assert code_version(["declared_here"]).sources != before.sources


def test_young_files_stay_whatever_their_version(home: TripsHome) -> None:
    rewritten(home, "raw/ended")
    held = set((home.path / "lake").rglob("*.parquet"))
    assert said(home, "vacuum", "--older-than", str(timedelta(days=7) // timedelta(hours=1))).code == 0
    assert held == set((home.path / "lake").rglob("*.parquet"))
