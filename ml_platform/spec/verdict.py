"""A judgement with its reason: the same sentence reaches the UI, the log, the alert and the test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["pass", "warn", "fail", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found, why, and the numbers behind it.

    ``unknown`` (no data, labels not mature, too little history) is a state of its own: it never counts as a pass.
    """

    state: State
    reason: str
    measures: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True for ``pass`` and ``warn``; ``unknown`` and ``fail`` are not passes."""
        return self.state in ("pass", "warn")

    @classmethod
    def unknown(cls, reason: str, **measures: float | int | str) -> "Verdict":
        """No judgement is possible; says why."""
        return cls(state="unknown", reason=reason, measures=measures)
