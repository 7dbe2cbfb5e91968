"""What a service was given and answered, a column each: the tables that its profiles are made of."""

import polars as pl

from ml_platform.stores.delta import PARTITION
from ml_platform.stores.prediction_log import named_features

PROBABILITY = "probability"


def served_features(predictions: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """One column a served feature, and the day of each row; of the answers with the newest answer's features.

    A feature that an earlier model version did not have is not one that was missing.
    """
    named = answered(predictions)
    return named.drop(PROBABILITY, PARTITION), named[PARTITION]


def answered(predictions: pl.DataFrame) -> pl.DataFrame:
    """As ``served_features``, with the probability that was answered and the day as columns, too."""
    rows = predictions.sort("asked_at", "prediction_id")
    newest = rows.tail(1).select("feature_names")
    rows = rows.join(newest, on="feature_names", how="semi").unique("prediction_id", keep="first", maintain_order=True)
    own = rows.select("prediction_id", PROBABILITY, PARTITION)
    return own.join(named_features(rows), on="prediction_id", maintain_order="left").drop("prediction_id")


def truths(labels: pl.DataFrame) -> pl.DataFrame:
    """The labels that became known, each once; null where it is known that there is no truth."""
    return labels.sort("known_at").unique("prediction_id", keep="first", maintain_order=True).select("value")
