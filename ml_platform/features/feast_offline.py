"""Feast's offline store over Delta tables: the point-in-time join on Polars, through Feast's own interface.

Name it in ``feature_store.yaml`` (``offline_store: type: ml_platform.features.feast_offline.DeltaOfflineStore``) and
give feature views a ``DeltaSource``; plain ``FileSource`` works, too. Nothing else of the platform is needed.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.utils import compute_non_entity_date_range
from pydantic import Field

from ml_platform.features import feast_tables
from ml_platform.features.feast_history import answered, arrow, plain, snapshot, wanted, within
from ml_platform.features.point_in_time import newest
from ml_platform.spec import DeclarationError, StateError

_AT = "event_timestamp"  # Feast's name of the moment in an answer without asked rows


class DeltaOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # mypy is told to skip feast
    """What ``offline_store`` in feature_store.yaml may hold."""

    type: Literal["ml_platform.features.feast_offline.DeltaOfflineStore"] = (
        "ml_platform.features.feast_offline.DeltaOfflineStore"
    )
    knowledge_time: bool = True
    """Whether a row that became known (created timestamp) after the asked moment is out of sight."""
    storage_options: dict[str, str] = Field(default_factory=dict)
    """For every table; as deltalake and Polars take them. ``${NAME}`` is read from the environment."""


class DeltaRetrievalJob(RetrievalJob):  # type: ignore[misc]  # mypy is told to skip feast
    """An answer that is computed when it is asked for, each time anew."""

    def __init__(
        self,
        compute: Callable[[], pa.Table],
        config: RepoConfig,
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._compute = compute
        self._config = config
        self._full_feature_names = full_feature_names
        self._on_demand = on_demand_feature_views or []
        self._metadata = metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._compute()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._compute().to_pandas()

    @property
    def full_feature_names(self) -> bool:
        """Whether features bear their view's name in front."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The on-demand views to compute on the answer."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked."""
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the answer, on-demand features included, to a Delta table or to parquet files.

        Raises:
            SavedDatasetLocationAlreadyExists: something is there and ``allow_overwrite`` is not set.
        """
        source = storage.to_data_source()
        feast_tables.refuse_taken(source, self._config, allow_overwrite=allow_overwrite)
        feast_tables.save(source, self._config, self.to_arrow())


class DeltaOfflineStore(OfflineStore):  # type: ignore[misc]  # mypy is told to skip feast
    """Historical features from Delta tables and parquet files, and the writes that go with them."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        *,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The asked rows in their order with the features as they were known at each row's timestamp.

        entity_df: keys and a timestamp (naive is UTC; time zones may be mixed). None: every entity with a row between
            ``start_date`` and ``end_date``, as at ``end_date``.
        filter_by_created_timestamp: insist on knowledge time where the configuration switches it off.

        Raises:
            DeclarationError: the asked rows are not a pandas frame, or a column is missing.
            StateError: the timestamp cannot be read, or a key is of another type than in the table.
        """
        asked = wanted(feature_views, feature_refs, full_names=full_feature_names)
        only_known = config.offline_store.knowledge_time or filter_by_created_timestamp
        if entity_df is None:
            first, last = compute_non_entity_date_range(feature_views, start_date=start_date, end_date=end_date)
            at, keys = _AT, list(dict.fromkeys(key for view in asked for key in view.keys))

            def entities() -> pa.Table:
                return snapshot(asked, config, at, first, last, only_known=only_known)
        else:
            at, moments = _moments(entity_df)
            keys = [str(name) for name in entity_df.columns if name != at]
            first, last = (None, None) if moments.isna().all() else (moments.min(), moments.max())

            def entities() -> pa.Table:
                return _arrow_of(entity_df, at, moments)

        return DeltaRetrievalJob(
            lambda: answered(entities(), at, asked, config, only_known=only_known),
            config,
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(feature_refs, keys, first, last),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Each entity's newest row with its event in [start_date, end_date], whenever it became known.

        All names are the table's own. Rows with a null in the key are left out: they cannot be looked up online.
        """
        stamps = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]

        def compute() -> pa.Table:
            columns = [*join_key_columns, *feature_name_columns, *stamps]
            rows = _read(config, data_source, columns, timestamp_field, start_date, end_date)
            found = newest(rows, keys=join_key_columns, event=timestamp_field, known=created_timestamp_column or None)
            return _with_dummy(arrow(rows[found]), join_key_columns)

        return DeltaRetrievalJob(compute, config)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows with their event in [start_date, end_date]; all columns if no features are named.

        All names are the table's own.
        """
        stamps = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]

        def compute() -> pa.Table:
            columns = [*join_key_columns, *feature_name_columns, *stamps] if feature_name_columns else None
            rows = _read(config, data_source, columns, timestamp_field, start_date, end_date)
            return _with_dummy(arrow(rows), join_key_columns)

        return DeltaRetrievalJob(compute, config)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to the view's table, which must be there; columns may bear the table's or the view's names.

        Raises:
            DeclarationError: the view has no source.
            StateError: columns or types do not fit, or the source is pinned to a version; nothing was written.
            MissingHistory: the table was never written.
        """
        source = feature_view.batch_source
        if source is None:
            raise DeclarationError(f"the feature view {feature_view.name} has no batch source to write to")
        # Feast maps a pushed frame to the view's names before it hands it over.
        physical = {new: old for old, new in source.field_mapping.items()}
        own = {name for name, _ in source.get_table_column_names_and_types(config)}
        names = [physical[name] if name not in own and name in physical else name for name in table.column_names]
        feast_tables.append(source, config, table.rename_columns(names))
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Append logged features to a Delta table or to parquet files.

        data: the rows, or a folder of parquet files that hold them.
        """
        rows = pq.read_table(data) if isinstance(data, Path) else data
        destination = logging_config.destination
        partition_by = getattr(destination, "partition_by", None) or ()
        feast_tables.log(destination.to_data_source(), config, plain(rows), partition_by)


def _moments(entity_frame: pd.DataFrame) -> tuple[str, pd.Series]:
    """The timestamp column's name and its moments in UTC.

    Raises:
        DeclarationError: not a pandas frame.
        StateError: a value is no time.
    """
    if not isinstance(entity_frame, pd.DataFrame):
        raise DeclarationError(
            f"asked rows are given as a pandas frame here, not as {type(entity_frame).__name__}: a SQL query has no "
            f"engine to run it. Compute the frame first"
        )
    at = infer_event_timestamp_from_entity_df(dict(entity_frame.dtypes))
    try:
        # Texts of any other form would be guessed at, day and month among them.
        return at, pd.to_datetime(entity_frame[at], utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise StateError(f"the column {at} of the asked rows holds something that is no time: {error}") from error


def _arrow_of(entity_frame: pd.DataFrame, at: str, moments: pd.Series) -> pa.Table:
    """Column by column: numbers stay where pandas has them.

    Raises:
        StateError: a column mixes types.
    """
    columns = {}
    for name, values in entity_frame.items():
        try:
            columns[str(name)] = pa.Array.from_pandas(moments if name == at else values)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise StateError(f"the column {name} of the asked rows mixes types; give it one: {error}") from error
    return plain(pa.table(columns))


def _read(
    config: RepoConfig,
    source: DataSource,
    columns: list[str] | None,
    event: str,
    first: datetime | None,
    last: datetime | None,
) -> Any:
    """Rows of a source by the table's own column names.

    Raises:
        DeclarationError: a column is not there.
        MissingHistory: the table, or the version of it, is not there.
    """
    frame = feast_tables.scan(source, config)
    schema = frame.collect_schema()
    names = list(dict.fromkeys(schema.names() if columns is None else columns))
    missing = [name for name in [event, *names] if name not in schema]
    if missing:
        raise DeclarationError(
            f"the source {source.name} lacks {', '.join(missing)}; it holds {', '.join(schema.names())}. Correct the "
            f"view or the source's field_mapping"
        )
    with feast_tables.readable(source, config):
        return frame.filter(*within(schema, event, first=first, last=last)).select(names).collect()


def _with_dummy(rows: pa.Table, keys: list[str]) -> pa.Table:
    """Feast looks views without entities up under an entity of its own."""
    if keys or DUMMY_ENTITY_ID in rows.column_names:
        return rows
    return rows.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * rows.num_rows, pa.string()))
