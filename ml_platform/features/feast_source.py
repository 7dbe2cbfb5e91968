"""A Delta table as a Feast data source, as a place for saved datasets and as a place for logged features."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from feast import type_map
from feast.data_source import DataSource
from feast.feature_logging import LoggingDestination
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.FeatureService_pb2 import LoggingConfig as LoggingConfigProto
from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as SavedDatasetStorageProto
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.value_type import ValueType

from ml_platform.features.delta_files import DeltaAddress
from ml_platform.spec import DeclarationError, MissingHistory

_log = logging.getLogger(__name__)


class DeltaSource(DataSource):  # type: ignore[misc]  # mypy is told to skip feast
    """Feature rows in a Delta table.

    ``timestamp_field`` is when a row's values held; ``created_timestamp_column``, if there is one, since when they were
    known: it decides between rows of one moment, and no row is used for a question asked before it.
    """

    def __init__(
        self,
        *,
        path: str,
        timestamp_field: str,
        name: str | None = None,
        version: int | None = None,
        storage_options: Mapping[str, str] | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str = "",
    ) -> None:
        """Name the table.

        path: folder or address (``s3://...``); a relative folder counts from the feature repository.
        version: read this version of the table for good; None: the newest at each reading.
        storage_options: as deltalake takes them. They are kept in Feast's registry: put secrets into the environment or
            into ``storage_options`` of the offline store's configuration instead.
        field_mapping: from the table's column to the name that feature views use.

        Raises:
            DeclarationError: no path, or a negative version.
        """
        if not path or (version is not None and version < 0):
            raise DeclarationError(f"a DeltaSource needs a path and, if any, a version from 0 on: {path!r}, {version}")
        super().__init__(
            name=name or path,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=dict(field_mapping or {}),
            description=description,
            tags=dict(tags or {}),
            owner=owner,
        )
        self.path = path
        self.version = version
        self.storage_options = dict(storage_options or {})

    def address(self, config: RepoConfig) -> DeltaAddress:
        """Where the table stands for this repository, its own options above those of the offline store."""
        options = {**store_options(config), **self.storage_options, **(self.resolve_credentials() or {})}
        is_relative = "://" not in self.path and not Path(self.path).is_absolute()
        uri = str(config.repo_path / self.path) if is_relative and config.repo_path else self.path
        return DeltaAddress(uri, self.version, options)

    def source_type(self) -> Any:
        """What Feast calls a source that it does not know itself."""
        return DataSourceProto.CUSTOM_SOURCE

    def __eq__(self, other: object) -> bool:
        """Whether both name the same table in the same way."""
        return isinstance(other, DeltaSource) and super().__eq__(other) and self._options() == other._options()

    def __hash__(self) -> int:
        """Equal for equal sources."""
        return int(super().__hash__())

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> "DeltaSource":
        """The source that was stored in a registry."""
        options = json.loads(data_source.custom_options.configuration)
        return DeltaSource(
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
            field_mapping=dict(data_source.field_mapping),
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
            **options,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{DeltaSource.__module__}.{DeltaSource.__qualname__}",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=_json(self._options())),
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            field_mapping=self.field_mapping,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def _options(self) -> dict[str, Any]:
        return {"path": self.path, "version": self.version, "storage_options": self.storage_options}

    def validate(self, config: RepoConfig) -> None:
        """Check that the table has the time columns; one that is not written yet is only warned of.

        Raises:
            DeclarationError: a time column is not there.
        """
        try:
            columns = self.address(config).schema().names
        except MissingHistory as error:
            _log.warning("%s", error)
            return
        physical = {new: old for old, new in self.field_mapping.items()}
        for name in filter(None, (self.timestamp_field, self.created_timestamp_column)):
            if name not in columns and physical.get(name) not in columns:
                raise DeclarationError(
                    f"the source {self.name} names the time column {name}, but the table {self.path} holds "
                    f"{', '.join(columns)}; correct timestamp_field or created_timestamp_column"
                )

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """How Arrow's type names become Feast's."""
        found: Callable[[str], ValueType] = type_map.pa_to_feast_value_type
        return found

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """The table's columns with Arrow's names of their types.

        Raises:
            MissingHistory: the table was never written, or its version is gone.
        """
        return [(field.name, str(field.type)) for field in self.address(config).schema()]


class SavedDatasetDeltaStorage(SavedDatasetStorage):  # type: ignore[misc]  # mypy is told to skip feast
    """A saved dataset in a Delta table of its own."""

    _proto_attr_name = "custom_storage"

    def __init__(self, path: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.storage_options = dict(storage_options or {})

    @staticmethod
    def from_proto(storage_proto: SavedDatasetStorageProto) -> "SavedDatasetDeltaStorage":
        """The place that was stored in a registry."""
        options = json.loads(storage_proto.custom_storage.configuration)
        return SavedDatasetDeltaStorage(options["path"], options["storage_options"])

    def to_proto(self) -> SavedDatasetStorageProto:
        """What Feast keeps in its registry."""
        options = _json({"path": self.path, "storage_options": self.storage_options})
        custom = DataSourceProto.CustomSourceOptions(configuration=options)
        found: SavedDatasetStorageProto = self._custom_storage_proto(custom)
        return found

    def to_data_source(self) -> DeltaSource:
        """The dataset as a source to read from."""
        # Feast reads saved datasets by a column of this name.
        return DeltaSource(path=self.path, timestamp_field="event_timestamp", storage_options=self.storage_options)


class DeltaLoggingDestination(LoggingDestination):  # type: ignore[misc]  # mypy is told to skip feast
    """Logged features in a Delta table; each flush is one append."""

    _proto_kind = "ml_platform_delta"

    def __init__(self, path: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.storage_options = dict(storage_options or {})

    @classmethod
    def from_proto(cls, config_proto: LoggingConfigProto) -> "DeltaLoggingDestination":
        """The destination that was stored in a registry."""
        options = dict(config_proto.custom_destination.config)
        return cls(options["path"], json.loads(options["storage_options"]))

    def to_proto(self) -> LoggingConfigProto:
        """What Feast keeps in its registry."""
        options = {"path": self.path, "storage_options": json.dumps(self.storage_options, sort_keys=True)}
        kind = LoggingConfigProto.CustomDestination(kind=self._proto_kind, config=options)
        return LoggingConfigProto(custom_destination=kind)

    def to_data_source(self) -> DeltaSource:
        """The logs as a source to read from."""
        # Feast writes the time of each request there.
        return DeltaSource(path=self.path, timestamp_field="__log_timestamp", storage_options=self.storage_options)


def store_options(config: RepoConfig) -> dict[str, str]:
    """Storage options that the repository's offline store gives to every source; other stores give none."""
    return dict(getattr(config.offline_store, "storage_options", None) or {})


def _json(options: Mapping[str, Any]) -> bytes:
    return json.dumps(options, sort_keys=True).encode()
