"""Work that gives way, beside work that does not."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has a class of idle tasks")
GIVE_WAY = "from ml_platform.serving.priority import give_way; give_way(); "


def test_what_it_starts_gives_way_too() -> None:
    shown = "import os; print(os.sched_getscheduler(0))"
    started = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {shown!r}])"
    done = subprocess.run([sys.executable, "-c", GIVE_WAY + started], capture_output=True, text=True, check=True)
    assert int(done.stdout) == os.SCHED_IDLE


@contextmanager
def busy(core: int, words: str = "") -> Iterator[int]:
    """A process that would use all of a core."""
    command = f"{words}import os; os.sched_setaffinity(0, {{{core}}}); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def ticks(pid: int) -> int:
    """CPU of a process so far, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_another_process_has_nearly_all_of_a_core_that_both_want() -> None:
    core = min(os.sched_getaffinity(0))
    with busy(core, GIVE_WAY) as idle, busy(core) as other:
        before = ticks(idle), ticks(other)
        deadline = time.monotonic() + 30
        while ticks(other) - before[1] < 50:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ticks(idle) - before[0] <= 5


def test_where_idle_tasks_are_forbidden_it_is_the_last_of_the_others() -> None:
    forbids = "import os\ndef no(*given): raise PermissionError(1, 'forbidden')\nos.sched_setscheduler = no\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{forbids}{GIVE_WAY}print(os.nice(0))"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 19
