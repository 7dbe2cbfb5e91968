"""Evidently's page for people, made on a sample in a process of its own: it needs seconds and half a gigabyte."""

import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_platform.monitoring.distances import distances
from ml_platform.monitoring.layouts import learn
from ml_platform.monitoring.profile import profile
from ml_platform.spec import PlatformError

SAMPLE_ROWS = 2000
MOST_FEATURES = 20  # that are drawn: with sixty nobody looks at the page, and it takes twice as long
CURRENT_DAYS, REFERENCE_DAYS = 7, 28
_TIMEOUT_SECONDS = 300  # Evidently takes about ten seconds on a sample of this size


PAGE_DAYS = CURRENT_DAYS + REFERENCE_DAYS  # how far back a page looks


def write_drift_page(served: pl.DataFrame, days: pl.Series, target: Path) -> str:
    """Compare the last week of served features with the weeks before; writes ``target``, returns what was compared.

    All are counted; of many those are drawn that changed most.

    Raises:
        PlatformError: Evidently failed; its last lines are in the message.
    """
    last = days.max()
    if served.is_empty() or last is None:
        return "nothing was served yet, so there is nothing to show"
    begins = last - timedelta(days=CURRENT_DAYS - 1)  # type: ignore[operator]
    earliest = begins - timedelta(days=REFERENCE_DAYS)
    parts = served.filter(days >= begins), served.filter((days < begins) & (days >= earliest))
    if parts[1].is_empty():
        return f"nothing was served before {begins}, so there is nothing to compare with"
    # Columns that are null throughout a part tell Evidently nothing, and it refuses them.
    empty = [name for name in served.columns if any(part[name].null_count() == part.height for part in parts)]
    if len(empty) == served.width:
        return f"no feature has values both since {begins} and before, so there is nothing to compare"
    ordered = changed_most(parts[1].drop(empty), parts[0].drop(empty))
    current, reference = (part.select(ordered).sample(min(SAMPLE_ROWS, part.height), seed=0) for part in parts)
    _make_page(current, reference, target)
    count = len(ordered)
    chosen = f", drawn for the {MOST_FEATURES} of {count} features that changed most" if count > MOST_FEATURES else ""
    left_out = f"; without {', '.join(empty)}, which had no value in one of them" if empty else ""
    return (
        f"{current.height} sampled answers since {begins} against {reference.height} since {earliest}{chosen}{left_out}"
    )


def changed_most(before: pl.DataFrame, current: pl.DataFrame) -> list[str]:
    """Names of the columns whose values, missing ones included, are farthest from those before; the farthest first."""
    layouts = learn(before, days=1)
    pairs = zip(profile(current, layouts), profile(before, layouts), strict=True)
    far = {now.column: distances(now, then).js or 0.0 for now, then in pairs}
    return sorted(far, key=lambda name: (-far[name], name))


def _make_page(current: pl.DataFrame, reference: pl.DataFrame, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that moving it there is one step and no half page is ever looked at.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".drift-") as folder:
        paths = [Path(folder) / name for name in ("current.parquet", "reference.parquet", "page.html")]
        current.write_parquet(paths[0])
        reference.write_parquet(paths[1])
        command = [sys.executable, "-m", "ml_platform.monitoring.evidently_page", *map(str, paths), str(MOST_FEATURES)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise PlatformError(
                f"Evidently took over {_TIMEOUT_SECONDS} s for {target.name}; materialize it again"
            ) from error
        if done.returncode:
            tail = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise PlatformError(f"Evidently could not make {target.name}; materialize the page again:\n{tail}")
        paths[2].replace(target)
