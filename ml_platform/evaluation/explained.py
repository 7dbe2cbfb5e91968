"""An explanation as people read it, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ml_platform.evaluation.explain import Explanation, Input

_TAGS = ("training_set", "trained_from", "holdout_until", "forgotten_rows")


def lines(found: Explanation) -> Iterator[str]:
    """What was answered, what it was made of (largest contribution first), and whether it adds up."""
    answer, parts = found.answer, found.contributions
    by = f"version {found.version.version} of {found.version.name} ({found.estimator})"
    yield f"{answer.prediction_id}: probability {answer.probability:.6g}, by {by} behind {answer.service}"
    yield f"asked {_moment(answer.asked_at)}, features as of {_moment(answer.as_of)}; found in {answer.found_in}"
    told = ", ".join(f"{name} {found.version.tags[name]}" for name in _TAGS if name in found.version.tags)
    if told:
        yield f"the version: {told}"
    yield ""
    added = f"contribution ({parts.scale})" if parts else "contribution"
    rows = [("input", "value", "view", added, "baseline"), *(_cells(each) for each in _sorted(found.inputs))]
    # The trees' baseline is no vector.
    against = any(each.baseline is not None for each in found.inputs)
    yield from _table(rows if against else [row[:-1] for row in rows])
    yield ""
    if parts is None:
        yield str(found.without)
    else:
        total = (
            f"base {parts.base:.6g} + contributions {parts.values.sum():.6g} = {parts.base + parts.values.sum():.6g}"
        )
        yield f"{total}; raw score {parts.raw:.6g} ({parts.scale}), gap {parts.gap:.1e}"
        yield f"method: {parts.method}"
        yield f"baseline: {parts.baseline}"
    exactly = "to the bit" if found.recomputed == answer.probability else f"but for {_off(found):.1e}"
    if not found.problems:
        yield f"the logged vector gives {found.recomputed:.6g} again, {exactly}"
    yield from (f"WRONG: {problem}" for problem in found.problems)


def as_json(found: Explanation) -> dict[str, Any]:
    """The same as plain values."""
    answer, parts = found.answer, found.contributions
    times = {name: getattr(answer, name).isoformat() for name in ("asked_at", "as_of", "answered_at")}
    return {
        "prediction_id": answer.prediction_id,
        "service": answer.service,
        "found_in": answer.found_in,
        "model": answer.model,
        "version": answer.version,
        "estimator": found.estimator,
        "tags": dict(found.version.tags),
        **times,
        "entities": dict(answer.entities),
        "probability": answer.probability,
        "recomputed": found.recomputed,
        "inputs": [asdict(each) for each in found.inputs],
        "contributions": parts
        and {
            "scale": parts.scale,
            "base": parts.base,
            "sum": float(parts.values.sum()),
            "raw": parts.raw,
            "gap": parts.gap,
            "method": parts.method,
            "baseline": parts.baseline,
        },
        "without": found.without,
        "problems": list(found.problems),
    }


def _sorted(inputs: Sequence[Input]) -> list[Input]:
    return sorted(inputs, key=lambda each: -abs(each.contribution or 0.0))


def _cells(each: Input) -> tuple[str, ...]:
    view = "as sent" if each.view is None else f"{each.view}@{each.view_version or 'not recorded'}"
    noted = f"{view} ({each.changed})" if each.changed else view
    contribution = "-" if each.contribution is None else f"{each.contribution:+.6f}"
    baseline = "-" if each.baseline is None else f"{each.baseline:.6g}"
    return each.name, _value(each.value), noted, contribution, baseline


def _value(value: float | str | None) -> str:
    return "missing" if value is None else value if isinstance(value, str) else f"{value:.6g}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _off(found: Explanation) -> float:
    return abs(found.recomputed - found.answer.probability)


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
