"""The prediction log: nothing answered is lost, whatever ends the writer or cuts the file."""

import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.spec import HomeDamaged
from ml_platform.stores.log_tail import LogTail
from ml_platform.stores.prediction_log import (
    LABEL_COLUMNS,
    PREDICTION_COLUMNS,
    Prediction,
    PredictionLog,
    Truth,
    named_features,
)

DAY = date(2013, 4, 1)
NOON = datetime(2013, 4, 1, 16, tzinfo=UTC)


def prediction(name: str, *features: float | None) -> Prediction:
    return Prediction(
        prediction_id=name,
        model="delay",
        model_version="3",
        probability=0.25,
        asked_at=NOON,
        as_of=NOON,
        answered_at=NOON + timedelta(microseconds=1),
        entities={"origin": "JFK", "flight": 11, "tailnum": None},
        feature_names=tuple(f"f{n}" for n in range(len(features))),
        features=features,
    )


def log_file(log: PredictionLog, stream: str = "predictions") -> Path:
    (path,) = (log.folder / stream / "delay" / DAY.isoformat()).iterdir()
    return path


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.append_predictions("delay", DAY, [prediction("a", 1.5, None)])
    row = log.predictions("delay", first=DAY, last=DAY).row(0, named=True)
    assert json.loads(row.pop("entities")) == {"origin": "JFK", "flight": 11, "tailnum": None}
    assert row == {
        "prediction_id": "a",
        "service": "delay",
        "model": "delay",
        "model_version": "3",
        "probability": 0.25,
        "asked_at": NOON,
        "as_of": NOON,
        "answered_at": NOON + timedelta(microseconds=1),
        "feature_names": ["f0", "f1"],
        "features": [1.5, None],
        "variant": "champion",
        "chance": 1.0,
        "seconds": None,
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(width=64)), min_size=1, max_size=8))
def test_features_come_back_bit_for_bit(values: list[float | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = PredictionLog(Path(folder))
        log.append_predictions("delay", DAY, [prediction("a", *values)])
        (read,) = log.predictions("delay")["features"].to_list()
        log.close()
    for before, after in zip(values, read, strict=True):
        if before is None or math.isnan(before):
            assert (after is None) == (before is None)
            assert before is None or math.isnan(after)
        else:
            assert struct.pack("<d", before) == struct.pack("<d", after)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), cut=st.integers(0, 4000), data=st.data())
def test_a_cut_file_loses_no_whole_record(sizes: list[int], cut: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = PredictionLog(Path(folder))
        written = 0
        for size in sizes:
            batch = [prediction(f"p{written + n}", *([0.1] * data.draw(st.integers(1, 3)))) for n in range(size)]
            log.append_predictions("delay", DAY, batch)
            written += size
        log.close()
        path = log_file(log)
        content = path.read_bytes()
        head = content[: min(cut, len(content))]
        path.write_bytes(head)
        whole = [line for line, rest in zip(content.split(b"\n"), _ends(content), strict=False) if rest <= len(head)]
        expected = [json.loads(line[9:])["id"] for line in whole if b'"id"' in line[:20]]
        reading = log.read_predictions("delay")
        assert reading.frame["prediction_id"].to_list() == expected
        assert reading.torn == int(len(head) > 0 and len(head) not in {0, *_ends(content)} and head[-1:] != b"\n")


def _ends(content: bytes) -> list[int]:
    """Where each line ends, its newline left out."""
    return [n for n, byte in enumerate(content) if byte == 10]


def test_a_torn_tail_of_zeros_is_ignored(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.append_predictions("delay", DAY, [prediction("a", 1.0)])
    with log_file(log).open("ab") as file:
        file.write(b"\0" * 50)
    reading = log.read_predictions("delay")
    assert (reading.frame.height, reading.torn) == (1, 1)


def test_a_corrupt_line_in_the_middle_names_file_and_line(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.append_predictions("delay", DAY, [prediction("a", 1.0), prediction("b", 2.0), prediction("c", 3.0)])
    path = log_file(log)
    path.write_bytes(path.read_bytes().replace(b'"id":"b"', b'"id":"x"'))
    with pytest.raises(HomeDamaged, match=rf"{path}, line 3"):
        log.predictions("delay")


def test_the_first_of_doubles_stays_and_they_are_counted(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    first = prediction("a", 1.0)
    later = replace(first, probability=0.9, answered_at=first.answered_at + timedelta(seconds=1))
    PredictionLog(tmp_path).append_predictions("delay", DAY, [later])
    log.append_predictions("delay", DAY, [first, prediction("b", 2.0)])
    reading = log.read_predictions("delay")
    assert reading.doubles == 1
    assert dict(reading.frame.select("prediction_id", "probability").iter_rows()) == {"a": 0.25, "b": 0.25}


def test_days_are_read_apart_and_ids_say_what_was_answered(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    for n in range(12):
        log.append_predictions("delay", DAY + timedelta(days=n), [prediction(f"p{n}", 1.0)])
        log.sync()
    log.append_predictions("delay", DAY, [prediction("again", 1.0, 2.0)])
    assert log.ids("delay", DAY) == {"p0", "again"}
    assert log.ids("delay", DAY - timedelta(days=1)) == set()
    first, last = DAY + timedelta(days=2), DAY + timedelta(days=3)
    assert log.predictions("delay", first=first, last=last)["prediction_id"].to_list() == ["p2", "p3"]
    assert len(log.days("predictions", "delay")) == 12
    log.close()
    log.append_predictions("delay", DAY, [prediction("after close", 1.0)])
    assert "after close" in log.ids("delay", DAY)


def test_labels_come_back(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.append_labels("delay", DAY, [Truth(prediction_id="a", value=1, known_at=NOON)])
    log.append_labels("delay", DAY, [Truth(prediction_id="a", value=0, known_at=NOON + timedelta(hours=1))])
    reading = log.read_labels("delay")
    assert reading.frame.rows() == [("a", "delay", 1, NOON)]
    assert reading.doubles == 1
    assert log.ids("delay", DAY, "labels") == {"a"}


def test_nothing_written_reads_as_empty_frames_of_the_same_columns(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "none")
    assert log.predictions("delay").schema == pl.Schema(PREDICTION_COLUMNS)
    assert log.labels("delay").schema == pl.Schema(LABEL_COLUMNS)
    assert named_features(log.predictions("delay")).columns == ["prediction_id"]


def test_named_features_survive_a_change_of_the_models_inputs(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.append_predictions("delay", DAY, [prediction("a", 1.0), prediction("b", None, 2.0)])
    named = named_features(log.predictions("delay"))
    assert named.to_dicts() == [
        {"prediction_id": "a", "f0": 1.0, "f1": None},
        {"prediction_id": "b", "f0": None, "f1": 2.0},
    ]


WRITER = """
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from ml_platform.stores.prediction_log import Prediction, PredictionLog
log, now, n = PredictionLog(Path(sys.argv[1])), datetime(2013, 4, 1, 16, tzinfo=UTC), 0
while True:
    batch = [Prediction(prediction_id=f"p{n + k}", model="m", model_version="1", probability=0.5, asked_at=now,
                        as_of=now, answered_at=now, entities={}, feature_names=("f",), features=[0.1 * n])
             for k in range(3)]
    log.append_predictions("delay", date(2013, 4, 1), batch)
    n += 3
    sys.stdout.write(f"{n}\\n"); sys.stdout.flush()
"""


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    for _ in range(2):  # the second writer finds the first one's files
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            acknowledged = [int(next(writer.stdout)) for _ in range(300)]
            writer.kill()
            acknowledged += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    reading = PredictionLog(tmp_path).read_predictions("delay")
    kept = set(reading.frame["prediction_id"])
    assert {f"p{n}" for n in range(acknowledged[-1])} <= kept
    assert reading.doubles > 0


FULL_DISK = """
import resource, signal, sys
from datetime import UTC, date, datetime
from pathlib import Path
from ml_platform.spec import StateError
from ml_platform.stores.prediction_log import PredictionLog, Truth
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log, now = PredictionLog(Path(sys.argv[1])), datetime(2013, 4, 1, 16, tzinfo=UTC)
def post(name): log.append_labels("delay", date(2013, 4, 1), [Truth(prediction_id=name, value=1, known_at=now)])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
post("before")
try:
    post("refused")
except StateError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
post("after")
"""


def test_a_full_disk_refuses_the_batch_and_leaves_no_half_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "cannot write the prediction log" in done.stdout
    assert PredictionLog(tmp_path).ids("delay", DAY, "labels") == {"before", "after"}


def test_a_tail_reads_whatever_a_record_can_hold(tmp_path: Path) -> None:
    """Not only what JSON's standard knows: NaN, infinity and numbers of more than 64 bits are logged as they are."""
    log = PredictionLog(tmp_path)
    features = (float("nan"), float("inf"), 2.5, None)
    log.append_predictions(
        "desk",
        DAY,
        [
            Prediction(
                prediction_id="a", model="delay", model_version="1", probability=0.5, asked_at=NOON, as_of=NOON,
                answered_at=NOON, entities={"line": 2**70, "far": float("inf")}, feature_names=("f", "g", "h", "i"),
                features=features, variant="champion", chance=1.0, seconds=None,
            )
        ],
    )  # fmt: skip
    log.close()
    (record,) = LogTail(tmp_path, "desk", DAY).new("predictions")
    assert str(record["features"]) == str([*features])
    assert record["entities"] == {"line": 2**70, "far": float("inf")}
