"""A prediction service."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Service:
    """An HTTP service that answers with a model's champion; it becomes ``services/<name>``.

    Its log is ``predictions/<name>`` and ``labels/<name>``, judged daily as ``performance/<name>``.

    skew_share: which share (0..1) of the answers is recomputed from the raw tables, chosen by a hash of their ids.
    """

    model: str
    description: str
    max_rows: int = 1000
    skew_share: float = 1.0
    owner: str = "team:ml-platform"
    name: str = ""
