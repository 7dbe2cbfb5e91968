"""What an asset tells about a table it wrote, in the keys that Dagster's pages show as tiles and plots."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from ml_platform.spec import Verdict


def table(frame: pl.DataFrame) -> dict[str, Any]:
    """Row count and column schema."""
    columns = [dg.TableColumn(name=name, type=str(dtype)) for name, dtype in frame.schema.items()]
    return {"dagster/row_count": frame.height, "dagster/column_schema": dg.TableSchema(columns=columns)}


def verdict(found: Verdict) -> dict[str, Any]:
    """State, reason and measures."""
    return {"verdict": found.state, "reason": found.reason, **found.measures}


def image(png: str, title: str) -> dg.MarkdownMetadataValue:
    """A base64 PNG as metadata that the UI renders behind "Show Markdown"."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{png})")


def check(
    found: Verdict, *, name: str | None = None, blocking: bool = False, extra: Mapping[str, Any] | None = None
) -> dg.AssetCheckResult:
    """A verdict as a check's result: *unknown* does not pass, but only a *fail* is an error."""
    severity = dg.AssetCheckSeverity.ERROR if found.state == "fail" and blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=name,
        passed=found.passed,
        severity=severity,
        description=found.reason,
        metadata={**verdict(found), **(extra or {})},
    )
