"""What an asset tells about a table it wrote, in the keys that Dagster's pages show as tiles and plots."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.spec import Verdict
from ml_platform.spec.lineage import Column
from ml_platform.stores.pages import Pages
from ml_platform.stores.tracking import ModelVersion, Tracking

# What a column of this name means in every table.
_MEANINGS = {
    "known_at": "when the platform could first know the row",
    "known_date": "the local day that the table is partitioned by",
    "as_of": "the moment from which on the values hold",
}
# The assets that a lineage may lead to.
_KEYS = {"raw": asset_keys.raw, "features": asset_keys.features}


def schema(
    columns: Mapping[str, pl.DataType | type[pl.DataType]], meanings: Mapping[str, str] | None = None
) -> dg.TableSchema:
    """Names, types and what is known of their meaning."""
    known = {**_MEANINGS, **(meanings or {})}
    found = [
        dg.TableColumn(name=name, type=_type_name(dtype), description=known.get(name))
        for name, dtype in columns.items()
    ]
    return dg.TableSchema(columns=found)


def lineage(
    columns: Mapping[str, Iterable[Column]], types: Mapping[str, pl.DataType | type[pl.DataType]]
) -> dict[str, Any]:
    """Which columns each column of a table comes from, for an asset's definition.

    columns: column of the table -> the columns behind it. types: of all columns of the table.
        The sources stand in the schema's descriptions, too: Dagster's open UI shows those and keeps lineage to its API.
    """
    sources = {name: sorted(behind) for name, behind in columns.items()}
    deps = {name: [dg.TableColumnDep(_KEYS[c.family](c.table), c.name) for c in sources[name]] for name in sources}
    said = {name: f"from {', '.join(map(str, behind))}" for name, behind in sources.items() if behind}
    return {
        "dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps),
        "dagster/column_schema": schema(types, said),
    }


def _type_name(dtype: pl.DataType | type[pl.DataType]) -> str:
    return f"Datetime {dtype.time_zone}" if isinstance(dtype, pl.Datetime) and dtype.time_zone else str(dtype)


def table(frame: pl.DataFrame) -> dict[str, Any]:
    """Row count and column schema."""
    return {"dagster/row_count": frame.height, "dagster/column_schema": schema(frame.schema)}


def figures(measures: Mapping[str, Any]) -> dict[str, Any]:
    """Measures as a page shows them: five significant digits, more are noise."""
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in measures.items()}


def verdict(found: Verdict) -> dict[str, Any]:
    """State, reason and measures."""
    return {"verdict": found.state, "reason": found.reason, **figures(found.measures)}


def image(png: str, title: str) -> dg.MarkdownMetadataValue:
    """A base64 PNG as metadata that the UI renders behind "Show Markdown"."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{png})")


def mlflow_links(tracking: Tracking, version: ModelVersion, pages: Pages) -> dict[str, Any]:
    """A version's page in MLflow and that of its run; `ml-platform ui` starts the server that shows them."""
    run = pages.mlflow_run(tracking.experiment(version.name), version.run_id)
    return {
        "mlflow_run": dg.MetadataValue.url(run),
        "mlflow_version": dg.MetadataValue.url(pages.mlflow_version(version.name, version.version)),
    }


def rows(frame: pl.DataFrame, most: int = 5) -> dg.TableMetadataValue:
    """The first rows, as a table on the page; floats as ``figures`` shows them."""
    shown = [{name: _cell(value) for name, value in row.items()} for row in frame.head(most).iter_rows(named=True)]
    columns = [dg.TableColumn(name=name, type="string") for name in frame.columns]
    records = [dg.TableRecord(row) for row in shown]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns=columns))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.5g}"
    return "" if value is None else str(value)


def check(
    found: Verdict,
    *,
    name: str | None = None,
    blocking: bool = False,
    extra: Mapping[str, Any] | None = None,
    of: dg.AssetKey | None = None,
) -> dg.AssetCheckResult:
    """A verdict as a check's result: *unknown* does not pass, but only a *fail* is an error. ``of``: the asset, where a
    step makes several."""
    severity = dg.AssetCheckSeverity.ERROR if found.state == "fail" and blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=of,
        passed=found.passed,
        severity=severity,
        description=found.reason,
        metadata={**verdict(found), **(extra or {})},
    )
