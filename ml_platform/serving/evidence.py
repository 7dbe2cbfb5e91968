"""The evidence of a rollout so far, of its records in order of time: pure, incremental, and never a pass without data.

A record says of one answer (or of a label that came later): its ``unit``, its ``variant``, the ``probability`` with
which the unit had been assigned to the canary, and columns of the metrics' names, null where nothing is known. Of each
unit and metric the first record with a value counts: a retry is no second piece of evidence, since it goes to the same
side. Where evidence is counted in finer units than are assigned (requests of a customer), give the unit of assignment
as ``assigned``: then its first record counts as well, for the others of one customer all are on one side.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.serving.eprocess import combined, cut_exp, log_bar
from ml_platform.serving.evidence_account import Account, Batch, Metric, Side
from ml_platform.spec import Verdict

CANARY, CHAMPION = "canary", "champion"
Hashes = NDArray[np.int64]
_UNITS = ("unit", "assigned")
Records = pl.DataFrame | Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One metric. ``rollback`` and ``promotion`` are logarithms of e-values now, the peaks their highest so far.

    A peak may be acted on as well (Ville); two workers put together have that of their sum only. ``events``: what the
    rollback's bets were made on (bad or slow answers; labelled units).
    """

    metric: str
    rollback: float
    promotion: float
    rollback_peak: float
    promotion_peak: float
    events: int
    canary: Side
    champion: Side
    sentence: str

    @property
    def has_data(self) -> bool:
        """Both sides have units, and something was bet on."""
        return self.events > 0 and self.canary.units > 0 and self.champion.units > 0

    def rolls_back(self, alpha: float) -> bool:
        """Sure, with a risk of alpha, that the canary is worse."""
        return self.has_data and self.rollback_peak >= log_bar(alpha)

    def promotes(self, alpha: float) -> bool:
        """Sure, with a risk of alpha, that the canary is not worse by the margin; now, for it may have become worse."""
        return self.has_data and self.promotion >= log_bar(alpha)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """All metrics of a rollout so far. ``seen``: for each metric, sorted hashes of the units that have been counted."""

    metrics: tuple[Metric, ...]
    accounts: tuple[Account, ...]
    seen: tuple[Hashes, ...]

    @classmethod
    def nothing(cls, metrics: Sequence[Metric]) -> Self:
        """Before the first record.

        Raises:
            ValueError: no metric, or two of one name.
        """
        if not metrics or len({metric.name for metric in metrics}) < len(metrics):
            raise ValueError("a rollout is judged by at least one metric, each with a name of its own")
        empty = tuple(Account.empty(metric) for metric in metrics)
        return cls(metrics=tuple(metrics), accounts=empty, seen=(np.empty(0, np.int64),) * len(metrics))

    def after(self, records: Records) -> Self:
        """With more records, in order of time. The same, to the bit, however the records are cut up.

        Raises:
            ValueError: a column that must be there is not, has nulls, or something is outside its range.
        """
        frame = checked_records(pl.DataFrame(records), (CANARY, CHAMPION))
        accounts, seen = [], []
        for metric, account, before in zip(self.metrics, self.accounts, self.seen, strict=True):
            known = _with_value(frame, metric)
            first, now = first_of_units(known, before)
            counted = known.filter(pl.Series(first, dtype=pl.Boolean))
            accounts.append(account.after(metric, _batch(counted, metric)) if counted.height else account)
            seen.append(now)
        return replace(self, accounts=tuple(accounts), seen=tuple(seen))

    def merged(self, other: Self) -> Self:
        """Of two workers that count the same metrics of different units.

        Raises:
            ValueError: other metrics, or a unit that both have counted.
        """
        if self.metrics != other.metrics:
            raise ValueError("the two workers count different metrics; both must follow the same rollout")
        for metric, mine, theirs in zip(self.metrics, self.seen, other.seen, strict=True):
            twice = np.intersect1d(mine, theirs).size
            if twice:
                raise ValueError(
                    f"{twice} units were counted by both workers for {metric.name}; send a unit always to the same "
                    f"worker, or gather the records of all in one place"
                )
        accounts = (mine.merged(theirs) for mine, theirs in zip(self.accounts, other.accounts, strict=True))
        seen = (np.union1d(mine, theirs) for mine, theirs in zip(self.seen, other.seen, strict=True))
        return replace(self, accounts=tuple(accounts), seen=tuple(seen))

    def evidence(self) -> tuple[Evidence, ...]:
        """Of each metric, in their order."""
        return tuple(map(_evidence, self.metrics, self.accounts))

    def as_json(self) -> dict[str, Any]:
        """Plain values, without any unit's name, from which ``from_json`` makes the same bits again."""
        return {
            metric.name: {"account": account.as_json(), "seen": text_of(units)}
            for metric, account, units in zip(self.metrics, self.accounts, self.seen, strict=True)
        }

    @classmethod
    def from_json(cls, metrics: Sequence[Metric], stored: Mapping[str, Any]) -> Self:
        """What ``as_json`` gave, for the same metrics.

        Raises:
            ValueError: it is of other metrics.
        """
        if set(stored) != {metric.name for metric in metrics}:
            raise ValueError(f"the stored evidence is of {', '.join(stored)}, not of these metrics; begin anew")
        return cls(
            metrics=tuple(metrics),
            accounts=tuple(Account.from_json(stored[metric.name]["account"]) for metric in metrics),
            seen=tuple(hashes_of(stored[metric.name]["seen"]) for metric in metrics),
        )


def judged(found: Sequence[Evidence], *, alpha: float = 0.05) -> Verdict:
    """``fail``: roll back; ``pass``: promote; ``unknown``: go on.

    Rolls back when the average of the metrics' e-values reaches 1/alpha (valid however they hang together). Promotes
    when every metric alone speaks against "worse by the margin": whichever of them is worse, its own e-value is valid.

    Raises:
        ValueError: no evidence at all, or an alpha outside (0, 1).
    """
    logs = combined([each.rollback for each in found])
    measures: dict[str, float | int | str] = {"rollback_log_e": logs}
    measures |= {f"{each.metric}_rollback_log_e": each.rollback for each in found}
    measures |= {f"{each.metric}_promotion_log_e": each.promotion for each in found}
    if logs >= log_bar(alpha):
        worst = max(found, key=lambda each: each.rollback)
        return Verdict(state="fail", reason=f"roll back: {worst.sentence}", measures=measures)
    missing = [each for each in found if not each.promotes(alpha)]
    if not missing:
        return Verdict(state="pass", reason=f"promote: {'; '.join(each.sentence for each in found)}", measures=measures)
    return Verdict(state="unknown", reason=f"go on: {'; '.join(each.sentence for each in missing)}", measures=measures)


def _evidence(metric: Metric, account: Account) -> Evidence:
    promotion = min(process.log_e for process in account.promotion)
    return Evidence(
        metric=metric.name,
        rollback=account.rollback.log_e,
        promotion=promotion,
        rollback_peak=account.rollback.peak,
        promotion_peak=min(process.peak for process in account.promotion),
        events=account.rollback.events,
        canary=account.canary,
        champion=account.champion,
        sentence=_sentence(metric, account, promotion),
    )


def _sentence(metric: Metric, account: Account, promotion: float) -> str:
    if not account.canary.units + account.champion.units:
        return f"{metric.name}: no data"
    if not (account.canary.units and account.champion.units):
        return f"{metric.name}: no data on {'the canary' if account.champion.units else 'the champion'}"
    sides = ", ".join(
        f"{name} {side.total / side.units:.4g} in the mean of {side.units:,}"
        for name, side in (("canary", account.canary), ("champion", account.champion))
    )
    margin = f"{metric.odds:g} times" if metric.kind != "bounded" else f"{metric.margin:g}"
    return (
        f"{metric.name}: {sides}; E that it is worse {_shown(account.rollback.log_e)}, "
        f"that it is not worse by {margin} {_shown(promotion)}"
    )


def _shown(log_e: float) -> str:
    return f"{cut_exp(log_e):.3g}"


def checked_records(frame: pl.DataFrame, variants: tuple[str, str]) -> pl.DataFrame:
    """The records, with hashes for units, if each says its unit, one of the two variants, and a probability.

    Raises:
        ValueError: they do not; says which column.
    """
    units = [column for column in _UNITS if column in frame.columns]
    for column in dict.fromkeys(("unit", "variant", "probability", *units)):
        if column not in frame.columns:
            raise ValueError(f"the records have no column {column!r}; they have {', '.join(frame.columns) or 'none'}")
        if frame[column].null_count():
            raise ValueError(f"{frame[column].null_count()} of {frame.height} records have no {column}")
    strange = frame.filter(~pl.col("variant").cast(pl.String).is_in(list(variants)))
    if strange.height:
        known = " or ".join(variants)
        raise ValueError(f"a variant is {known}, not {strange['variant'][0]!r}; leave records of others out")
    return frame.with_columns(pl.Series(column, _hashes(column, frame[column])) for column in units)


def _with_value(frame: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    if not set(metric.read) <= set(frame.columns):
        return frame.clear()
    return frame.drop_nulls(metric.read)


def first_of_units(known: pl.DataFrame, before: Hashes) -> tuple[NDArray[np.bool_], Hashes]:
    """Which checked records are their unit's (and assigned unit's, if given) first, and all units seen by then."""
    first, seen = np.ones(known.height, dtype=bool), before
    for column in _UNITS:
        if column in known.columns and known.height:
            hashes = known[column].to_numpy()
            once, places = np.unique(hashes, return_index=True)
            new = ~_among(before, once)
            mine = np.zeros(known.height, dtype=bool)
            mine[places[new]] = True
            first &= mine
            # Into their places: sorting all units anew costs every small batch what all units cost.
            seen = np.insert(seen, np.searchsorted(seen, once[new]), once[new])
    return first, seen


def _among(units: Hashes, some: Hashes) -> NDArray[np.bool_]:
    """Which of ``some`` are among the sorted units."""
    places = np.searchsorted(units, some)
    found = np.zeros(len(some), dtype=bool)
    inside = places < len(units)
    found[inside] = units[places[inside]] == some[inside]
    return found


def _hashes(kind: str, units: pl.Series) -> Hashes:
    """Eight bytes of each: two of a million units fall together once in forty million rollouts."""
    digests = (hashlib.blake2b(f"{kind}:{unit}".encode(), digest_size=8).digest() for unit in units.cast(pl.String))
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def text_of(units: Hashes) -> str:
    """Hashes as text."""
    return b64encode(units.astype("<i8").tobytes()).decode()


def hashes_of(text: str) -> Hashes:
    """What ``text_of`` gave."""
    return np.frombuffer(b64decode(text), "<i8").astype(np.int64)


def _batch(counted: pl.DataFrame, metric: Metric) -> Batch:
    values, *other = (counted[name].cast(pl.Float64).to_numpy() for name in metric.read)
    return Batch(
        values=values,
        canary=(counted["variant"].cast(pl.String) == CANARY).to_numpy(),
        probability=counted["probability"].cast(pl.Float64).to_numpy(),
        other=other[0] if other else None,
    )
