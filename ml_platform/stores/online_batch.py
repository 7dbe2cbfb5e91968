"""What is published to an online store, as Feast's bytes, column by column."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from ml_platform.spec import FeatureView
from ml_platform.stores.feast_bytes import column_encoder, entity_key_encoder, micros


@dataclass(frozen=True, slots=True)
class Batch:
    """Entities' newest rows, encoded; ``moments`` are microseconds since 1970."""

    keys: list[bytes]
    moments: list[int]
    columns: dict[str, list[bytes]]


@dataclass(frozen=True, slots=True)
class Publication:
    """Each entity's newest row; ``created`` and ``oldest`` are microseconds since 1970.

    oldest: what is older is not kept online; None if everything is.
    """

    view: FeatureView
    rows: pl.DataFrame
    created: int
    oldest: int | None

    def batches(self, size: int, around: Callable[[bytes], bytes] = bytes) -> Iterator[Batch]:
        """The rows in batches of so many, each encoded when it is its turn.

        around: what a store wants before and after the bytes of each value, by their length.
        """
        encode, encode_column = entity_key_encoder(self.view.entity_names), column_encoder(around)
        for some in self.rows.iter_slices(size):
            yield Batch(
                keys=[encode(key) for key in some.select(self.view.entity_names).iter_rows()],
                moments=some["as_of"].dt.epoch("us").to_list(),
                columns={name: encode_column(some[name]) for name in self.view.schema()},
            )


def publication(view: FeatureView, rows: pl.DataFrame, published_at: datetime) -> Publication:
    """Of each entity the row with the newest ``as_of`` (of equal ones the last), if it is young enough to be kept."""
    oldest = published_at - view.online_for if view.online_for else None
    if oldest is not None:
        rows = rows.filter(pl.col("as_of") >= oldest)
    names = list(view.entity_names)
    newest = rows.sort("as_of", maintain_order=True).unique(names, keep="last", maintain_order=True)
    return Publication(view, newest, micros(published_at), None if oldest is None else micros(oldest))
