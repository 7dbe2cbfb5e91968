"""What is published to an online store, as Feast's bytes, column by column."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from ml_platform.spec import FeatureView
from ml_platform.stores.feast_bytes import encode_column, entity_key_encoder, micros


@dataclass(frozen=True, slots=True)
class Batch:
    """Each entity's newest row, encoded; ``moments``, ``created`` and ``oldest`` are microseconds since 1970.

    oldest: what is older is not kept online; None if everything is.
    """

    keys: list[bytes]
    moments: list[int]
    columns: dict[str, list[bytes]]
    created: int
    oldest: int | None


def batch(
    view: FeatureView, rows: pl.DataFrame, published_at: datetime, around: Callable[[bytes], bytes] = bytes
) -> Batch:
    """Of each entity the row with the newest ``as_of`` (of equal ones the last), if it is young enough to be kept.

    around: what a store wants before and after the bytes of each value, by their length.
    """
    names = list(view.entity_names)
    oldest = published_at - view.online_for if view.online_for else None
    if oldest is not None:
        rows = rows.filter(pl.col("as_of") >= oldest)
    newest = rows.sort("as_of", maintain_order=True).unique(names, keep="last", maintain_order=True)
    encode = entity_key_encoder(view.entity_names)
    return Batch(
        keys=[encode(key) for key in newest.select(names).iter_rows()],
        moments=newest["as_of"].dt.epoch("us").to_list(),
        columns={name: encode_column(newest[name], around) for name in view.schema()},
        created=micros(published_at),
        oldest=None if oldest is None else micros(oldest),
    )
