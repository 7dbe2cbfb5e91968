"""A prediction service."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Service:
    """An HTTP service that answers with a model's champion; it becomes ``services/<name>``.

    Its log is ``predictions/<name>`` and ``labels/<name>``, judged daily as ``performance/<name>``.

    most_waiting: requests that may wait for an answer in one process; whoever comes on top is told to come back (503).
    answer_within: a request whose turn has not come after this long is given up (504); what is asked of Redis may take
        two seconds more.
    skew_share: which share (0..1) of the answers is recomputed from the raw tables, chosen by a hash of their ids.
    truths_within: by when the truth of an answer, or the word that there is none, has arrived; the check
        ``truths_arrive`` fails while older answers lack it. None: unknown, so nothing is checked.
    keep_log: how long the log's own files are kept once the lake holds their records; None: for ever.
    """

    model: str
    description: str
    max_rows: int = 1000
    most_waiting: int = 512
    answer_within: timedelta = timedelta(seconds=2)
    skew_share: float = 1.0
    truths_within: timedelta | None = None
    keep_log: timedelta | None = timedelta(days=35)
    owner: str = "team:ml-platform"
    name: str = ""
