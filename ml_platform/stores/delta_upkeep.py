"""Upkeep of Delta tables: small files put together, files that no version needs removed."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from ml_platform.stores.delta import Lake


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """What was done to one table: how many files were put together and removed, and which versions stay readable."""

    table: str
    merged: int
    removed: int
    kept_versions: tuple[int, ...]

    def sentence(self) -> str:
        """For people."""
        kept = f"; kept for registered models: version {', '.join(map(str, self.kept_versions))}"
        merged = f"{self.merged} files put together, " if self.merged else ""
        return f"{self.table}: {merged}{self.removed} files removed{kept if self.kept_versions else ''}"


def optimize(lake: Lake, table: str) -> int:
    """Put the small files of each day together; returns how many were replaced. Rows stay, their order does not.

    Raises:
        MissingHistory: the table was never written.
    """
    return int(lake.opened(table).optimize.compact()["numFilesRemoved"])


def vacuum(lake: Lake, table: str, older_than: timedelta, keep_versions: Collection[int]) -> int:
    """Remove the files that neither the newest version nor one of ``keep_versions`` holds; returns how many.

    older_than: files younger than this stay, too: somebody may be reading or writing them.

    Raises:
        MissingHistory: the table was never written.
    """
    removed = lake.opened(table).vacuum(
        retention_hours=int(older_than / timedelta(hours=1)),
        dry_run=False,
        enforce_retention_duration=False,  # Delta's own least is a week; the caller says how long
        full=True,  # also what a killed writer left, which no log knows
        keep_versions=sorted(keep_versions),
    )
    return len(removed)
