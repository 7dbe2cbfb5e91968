"""The benchmark of training, small and once, by the real command; and that it times nothing that is not equal."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.bench import training
from ml_platform.bench.training_arm import ARMS, CATEGORIES, NUMBERS
from ml_platform.spec import PlatformError

pytestmark = pytest.mark.long
_NUMBER = r"([\d,]+(?:\.\d+)?)"


def numbers(pattern: str, said: str) -> list[float]:
    found = re.search(pattern.replace("#", _NUMBER), said)
    assert found, (pattern, said)
    return [float(each.replace(",", "")) for each in found.groups()]


def test_the_command_compares_trees_and_prints_both_tables() -> None:
    command = [Path(sys.executable).with_name("ml-platform"), "bench", "training", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "cores" in said.splitlines()[0]
    assert "lightgbm 4" in said.splitlines()[0]
    title = f"5,000 rows of {len(CATEGORIES)} categories and {NUMBERS} numbers, 5 rounds of 63 leaves: trees equal; "
    assert title in said
    for arm in ARMS:
        line = rf"(?m)^  {re.escape(arm)} +# s +# s CPU +# GB before, \+# GB at its peak +# of bare$"
        seconds, cpu, before, more, times = numbers(line, said)
        assert 0 < seconds < 60
        assert cpu > 0
        assert before > 0.05  # polars and LightGBM are loaded
        assert more < 1  # five thousand rows
        assert (times == 1) if arm == "bare" else (times > 0)
    assert f"network: 20,000 rows, shuffled batches of {training.BATCH_ROWS}; " in said
    for what in ("frame to tensors, once", "batches of an epoch"):
        by_the_clock, by_cpu = numbers(rf"(?m)^  {what} +# rows/s +# a CPU second$", said)
        assert by_the_clock > 1000
        assert by_cpu > 1000


def test_an_arm_that_grows_other_trees_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(training, "_ARM", "ml_platform_tests.other_trees_arm")
    with pytest.raises(PlatformError, match=r"^ours grows other trees than LightGBM called bare; nothing was timed$"):
        training.compared(2_000, 3, 1, said.append)
    assert said == []


def test_an_arm_that_fails_is_told_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.ARMS, "absent", ARMS["bare"])  # here; the arm's own process knows of none
    with pytest.raises(PlatformError, match=r"(?s)the arm `.* absent .*` ended with 1:.*KeyError: 'absent'"):
        training.compared(2_000, 3, 1, lambda _: None)
