"""A prediction service."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Service:
    """An HTTP service that answers with a model's champion; it becomes ``services/<name>``.

    Its log is ``predictions/<name>`` and ``labels/<name>``, judged daily as ``performance/<name>``.
    """

    model: str
    description: str
    max_rows: int = 1000
    owner: str = "team:ml-platform"
    name: str = ""
