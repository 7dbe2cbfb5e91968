"""A level that goes out of saved models, alone or blended: answers to all others stay to the bit, also after a kill."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.forgetting.texts import Learned, Versions
from ml_platform.resources.projects import load_project
from ml_platform.spec.entities import EntityValue
from ml_platform.stores.artifacts import Artifacts
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.texts import Words
from ml_platform.training.blend import blended
from ml_platform.training.estimators import load
from ml_platform.training.forgotten_level import forget_level
from ml_platform.training.lightgbm_trees import fit_trees

TOKEN = "forgotten-0a1b2c3d4e5f"
NOON = datetime(2024, 3, 9, 17, tzinfo=UTC)


def _rows(levels: list[Any]) -> pl.DataFrame:
    draw = np.random.default_rng(3)
    line, miles = draw.integers(0, len(levels), 600), draw.uniform(0, 9, 600)
    return pl.DataFrame(
        {
            "line": [levels[n] for n in line],
            "planned__miles": miles,
            "happens_at": [NOON + timedelta(minutes=n) for n in range(600)],
            "label": ((line + miles + draw.normal(0, 1, 600)) > 6).astype(int),
        }
    )


def _saved(folder: Path, levels: list[Any], kind: str) -> Path:
    spec, rows = load_project("ml_platform_tests.trips").models["late"], _rows(levels)
    one = fit_trees(spec, rows, 15, threads=1)
    if kind == "alone":
        return one.save(folder)
    other = fit_trees(replace(spec, seed=5), rows.head(400), 9, threads=1)
    return blended([one, replace(other, encoding=one.encoding)], [0.25, 0.75]).save(folder)


@pytest.mark.parametrize("kind", ["alone", "blended"])
@pytest.mark.parametrize("levels", [["A", "B", "C", "D"], [3, 11, 703, 9]], ids=["texts", "numbers"])
def test_a_level_goes_and_the_answers_to_others_stay(tmp_path: Path, levels: list[Any], kind: str) -> None:
    folder, gone = _saved(tmp_path / "models" / "m-1", levels, kind), levels[1]
    before, rows = load(folder), _rows(levels)
    others = rows.filter(pl.col("line") != gone)
    unseen = before.predict(rows.with_columns(line=pl.lit(None, rows["line"].dtype)))
    words = Words(entity="line", text=str(gone), ids=frozenset(), names=frozenset(), token=TOKEN)
    artifacts = Artifacts(str(tmp_path / "models"))
    versions = Versions(None, Ledger(tmp_path / "ledger.db"), artifacts.address, "a line was forgotten", NOON)
    place = Learned(artifacts, EntityValue(name="line", text=str(gone)), words, versions)
    schemas = 1 if kind == "alone" else 3
    assert len([held for held in place.held() if held.place.endswith("schema.json")]) == schemas
    place.purge()
    assert list(place.held()) == []
    after = load(folder)
    assert len(after.encoding.categories["line"]) == len(levels)
    assert gone not in after.encoding.categories["line"]
    assert (after.predict(others) == before.predict(others)).all()
    asked = rows.filter(pl.col("line") == gone)
    assert (after.predict(asked) == unseen[(rows["line"] == gone).to_numpy()]).all()
    assert (after.predict_rows(asked.to_dicts()) == after.predict(asked)).all()


def test_a_blend_that_was_cut_off_between_its_files_is_whole_after_the_next_time(tmp_path: Path) -> None:
    folder = _saved(tmp_path / "blend", ["A", "B", "C"], "blended")
    whole = shutil.copytree(folder, tmp_path / "whole")
    forget_level(whole, "line", "B", TOKEN)
    names = ["member-0/schema.json", "member-1/schema.json", "shares.json", "schema.json"]
    for done in range(len(names)):
        half = shutil.copytree(folder, tmp_path / f"half-{done}")
        for name in names[:done]:
            shutil.copy(whole / name, half / name)
        forget_level(half, "line", "B", TOKEN)
        assert [(half / name).read_text() for name in names] == [(whole / name).read_text() for name in names]
    load(whole)


def test_a_model_without_the_entity_is_left_as_it_is(tmp_path: Path) -> None:
    folder = _saved(tmp_path / "blend", ["A", "B", "C"], "blended")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    forget_level(folder, "driver", "B", TOKEN)
    forget_level(folder, "line", "Z", TOKEN)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "schema.json").write_text(json.dumps({"estimator": "lightgbm"}, indent=1))
    forget_level(tmp_path / "old", "line", "B", TOKEN)
