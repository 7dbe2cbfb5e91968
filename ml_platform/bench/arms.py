"""Runs one arm of a benchmark in a process of its own: its seconds, and the memory that all its processes held."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import sleep
from typing import Any

from ml_platform.spec import PlatformError

_LOOK_EVERY_SECONDS = 0.01
_MB = 2**20


@dataclass(frozen=True, kw_only=True)
class ArmRun:
    """One run: what the arm printed of itself as its last line (JSON), and the greatest memory of its processes."""

    said: dict[str, Any]
    peak_mb: float


def run_arm(module: str, *words: str) -> ArmRun:
    """Run ``python -m module words...``; memory is resident memory, shared pages counted once a process.

    Raises:
        PlatformError: it failed; the end of what it said is in the message.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *words]
    # A file, not a pipe: nobody reads while the arm runs, and a full pipe would stop it.
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True) as process,
    ):
        peak = 0.0
        while process.poll() is None:
            # The kernel's own peak of the first process misses nothing between two looks.
            peak = max(peak, sum(resident(pid) for pid in _family(process.pid)) / _MB, peak_mb(process.pid))
            sleep(_LOOK_EVERY_SECONDS)
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise PlatformError(f"the arm `{' '.join(command[3:])}` ended with {process.returncode}:\n{said[-2000:]}")
    return ArmRun(said=json.loads(said.strip().splitlines()[-1]), peak_mb=peak)


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [member for child in task.read_text().split() for member in _family(int(child))]
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended since
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; zero once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def peak_mb(pid: int | str = "self") -> float:
    """The greatest resident memory of a process so far; zero once it has ended.

    Not what ``getrusage`` says: that begins with the memory of whoever started the process.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0.0)


def machine(packages: Sequence[str]) -> str:
    """One line: processor, cores, memory, and the versions of the packages that are compared."""
    facts = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in facts if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; "
        f"Python {platform.python_version()}, {versions}"
    )
