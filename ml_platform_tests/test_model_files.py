"""The files of a version are those that the ledger says, or it is not loaded."""

import json
import random
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from ml_platform.forgetting.texts import Learned, Versions
from ml_platform.serving.champion import ChampionWatch, load_champion
from ml_platform.spec import ModelRefused
from ml_platform.spec.entities import EntityValue
from ml_platform.stores.artifacts import Artifacts
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import FILES, TRAINING
from ml_platform.stores.model_files import as_registered, digests, note_change, said_of, taken
from ml_platform.stores.texts import Words
from ml_platform.stores.tracking import ModelVersion
from ml_platform.training.lightgbm_trees import MODEL_FILE
from ml_platform_tests.serving_world import NOON, World, world

ALL = {MODEL_FILE, "schema.json"}


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def ledger(tiny: World) -> Ledger:
    return Ledger(tiny.profile.ledger_path)


def trained(tiny: World, folder: Path, *, upside_down: bool = False) -> ModelVersion:
    """A version as the platform registers one."""
    version = tiny.register(tiny.trained(folder, upside_down=upside_down))
    body = {"version": version.version, "decision": 0, "files": dict(version.files)}
    ledger(tiny).write(TRAINING, "late", f"run-{version.version}", NOON, body)
    return version


def watch(tiny: World, scratch: Path) -> ChampionWatch:
    task, views = tiny.spec.task, tiny.project.all_views
    scratch.mkdir()
    return ChampionWatch(
        find=lambda: tiny.tracking.champion("late"),
        load=lambda version: load_champion(tiny.tracking, ledger(tiny), version, task, views, scratch),
    )


def stored(tiny: World, version: ModelVersion) -> Path:
    return tiny.tracking.download(version, Path("nowhere"))


def forged(folder: Path) -> None:
    """Another answer, and digests in the schema that fit it: as somebody would who can write to the store."""
    text = (folder / MODEL_FILE).read_text()
    at = text.index("leaf_value=") + len("leaf_value=")
    changed = text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
    (folder / MODEL_FILE).write_text(changed)
    schema = json.loads((folder / "schema.json").read_text())
    schema["sha256"][MODEL_FILE] = schema["content"][MODEL_FILE] = sha256(changed.encode()).hexdigest()
    (folder / "schema.json").write_text(json.dumps(schema, indent=1))


def test_a_registration_says_every_file_but_mlflows_own(tiny: World, tmp_path: Path) -> None:
    version = trained(tiny, tmp_path / "v1")
    assert version.files.keys() == ALL
    assert digests(stored(tiny, version)) == version.files == said_of(ledger(tiny), "late", "1")
    assert tiny.tracking.version("late", 1).files == {}  # the registry is no witness


def test_a_forged_file_is_refused_with_its_digests_forged_too_and_the_old_version_stays(
    tiny: World, tmp_path: Path
) -> None:
    tiny.tracking.promote("late", trained(tiny, tmp_path / "v1").version)
    looks = watch(tiny, tmp_path / "scratch")
    looks.look()
    second = trained(tiny, tmp_path / "v2", upside_down=True)
    forged(stored(tiny, second))
    tiny.tracking.promote("late", second.version)
    looks.look()
    assert looks.current is not None
    assert looks.current.version == "1"
    assert f"{MODEL_FILE} has another SHA-256; schema.json has another SHA-256" in looks.refused["2"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_without_the_ledger_the_forged_file_would_have_been_loaded(
    tiny: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So the test above tests the ledger; and a version from before it is loaded, and said to be."""
    version = tiny.register(tiny.trained(tmp_path / "v1"))
    forged(stored(tiny, version))
    found = load_champion(tiny.tracking, ledger(tiny), version, tiny.spec.task, tiny.project.all_views, tmp_path)
    assert found.version == "1"
    assert "does not say with which files version 1 of late was registered" in caplog.text


def test_any_change_of_any_file_is_found(tiny: World, tmp_path: Path) -> None:
    folder, draw = tiny.trained(tmp_path / "v1"), random.Random(7)
    said = digests(folder)
    for round_ in range(60):
        copy = shutil.copytree(folder, tmp_path / f"copy-{round_}")
        path = copy / draw.choice(sorted(said))
        content = bytearray(path.read_bytes())
        how = draw.choice(["flip", "cut", "append", "remove"])
        if how == "flip":
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(
            content[: draw.randrange(len(content))] if how == "cut" else content + b" " * (how == "append")
        )
        if how == "remove":
            path.unlink()
        with pytest.raises(ModelRefused, match=rf"{path.name} (is missing|has another SHA-256)"):
            taken(copy, said, tmp_path / f"taken-{round_}", "version 1 of late")
    whole = taken(folder, said, tmp_path / "whole", "version 1 of late")
    assert digests(whole) == said


def test_what_is_added_beside_is_not_taken(tiny: World, tmp_path: Path) -> None:
    version = trained(tiny, tmp_path / "v1")
    (stored(tiny, version) / "features.json").write_text("{}")
    found = as_registered(stored(tiny, version), ledger(tiny), "late", "1", tmp_path / "taken")
    assert {path.name for path in found.iterdir()} == ALL


def test_what_a_forgetting_changes_is_said_before_and_loaded_after(tiny: World, tmp_path: Path) -> None:
    version = trained(tiny, tmp_path / "v1")
    words = Words(entity="city", text="Oslo", ids=frozenset(), names=frozenset(), token="forgotten-0123abcd")
    address = tiny.profile.mlflow_artifacts
    versions = Versions(tiny.tracking, ledger(tiny), address, "a city was forgotten, which they named", NOON)
    place = Learned(Artifacts(address), EntityValue(name="city", text="Oslo"), words, versions)
    place.purge()
    assert "Oslo" not in (stored(tiny, version) / "schema.json").read_text()
    (line,) = ledger(tiny).entries(FILES, "late")
    assert set(line.body["files"]) == {"schema.json"}
    load_champion(tiny.tracking, ledger(tiny), version, tiny.spec.task, tiny.project.all_views, tmp_path)
    place.purge()
    assert len(ledger(tiny).entries(FILES, "late")) == 1
    forged(stored(tiny, version))
    place.purge()
    with pytest.raises(ModelRefused, match=MODEL_FILE):
        load_champion(tiny.tracking, ledger(tiny), version, tiny.spec.task, tiny.project.all_views, tmp_path)


def test_a_forgetting_blesses_no_file_that_was_not_registered(tiny: World, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "v1")
    said, wrong = said_of(ledger(tiny), "late", "1"), "f" * 64
    assert said is not None
    assert not note_change(ledger(tiny), "late", "1", {"schema.json": wrong}, {"schema.json": "e" * 64}, "r", NOON)
    assert note_change(
        ledger(tiny), "late", "1", {"schema.json": said["schema.json"]}, {"schema.json": wrong}, "r", NOON
    )
    # As after a kill between the line and the file: said again from the same bytes.
    assert note_change(
        ledger(tiny), "late", "1", {"schema.json": said["schema.json"]}, {"schema.json": wrong}, "r", NOON
    )
    assert len(ledger(tiny).entries(FILES, "late")) == 1
    assert said_of(ledger(tiny), "late", "1") == {**said, "schema.json": wrong}
    assert not note_change(ledger(tiny), "late", "2", {"schema.json": wrong}, {"schema.json": wrong}, "r", NOON)
