"""Alertmanager's inhibition rules of a project: the alarm on a place speaks for all that stands behind it.

A page silences pages and warnings, a warning warnings alone. What is told of processes (``signal`` other than ``data``)
is silenced by nothing: a service that is down is told of whatever else is wrong.
"""

from collections.abc import Collection, Iterable, Iterator

from ml_platform.spec import Project
from ml_platform.spec.behind import behind, places

MARKER = "# From here on written by `ml-platform alerts inhibitions`; do not edit below."
_DOT = "\\\\."  # the backslash is one of the expression, within a matcher's quotation marks
_SILENCED = {"page": "page|warn", "warn": "warn"}  # by the severity of what speaks


def rules_of(project: Project) -> str:
    """The section ``inhibit_rules``; places with the same things behind them share their rules."""
    sharing: dict[frozenset[str], list[str]] = {}
    for place in sorted(places(project)):
        if reach := behind(project, place):
            sharing.setdefault(reach, []).append(place)
    rules = [rule for reach, sources in sharing.items() for rule in _rules(sources, reach)]
    return "\n".join(["inhibit_rules:", *_own_place(), *rules]) + "\n"


def with_rules(text: str, rules: str) -> str | None:
    """The configuration with these rules below its marker line; None: it has none."""
    above, marker, _ = text.partition(f"{MARKER}\n")
    return f"{above}{marker}{rules}" if marker else None


def _own_place() -> Iterator[str]:
    """An incident speaks for whatever else is wrong at its place."""
    for severity, silenced in _SILENCED.items():
        yield (
            f'- source_matchers: [alertname="Incident", severity="{severity}"]\n'
            f'  target_matchers: [alertname!="Incident", \'severity=~"{silenced}"\', signal="data"]\n'
            f"  equal: [place]"
        )


def _rules(sources: Collection[str], reach: Collection[str]) -> Iterator[str]:
    source, target = _pattern(sources), _pattern(reach)
    for severity, silenced in _SILENCED.items():
        yield (
            f'- source_matchers: [\'place=~"{source}"\', severity="{severity}", signal="data"]\n'
            f'  target_matchers: [\'place=~"{target}"\', \'severity=~"{silenced}"\', signal="data"]'
        )


def _pattern(found: Collection[str]) -> str:
    """A regular expression (which Alertmanager anchors) of exactly these places, as a matcher's value holds it."""
    families: dict[str, dict[str, list[str]]] = {}
    for place in sorted(found):
        family, _, rest = place.partition("/")
        name, _, column = rest.partition(".")
        families.setdefault(family, {}).setdefault(name, []).append(column)
    parts = [f"{family}/{_any(_of_table(*item) for item in tables.items())}" for family, tables in families.items()]
    return "|".join(parts)


def _of_table(name: str, columns: Collection[str]) -> str:
    """The table's columns; an empty name is the table itself."""
    listed = [column for column in columns if column]
    if not listed:
        return name
    inner = f"{_DOT}{_any(listed)}"
    return f"{name}({inner})?" if "" in columns else f"{name}{inner}"


def _any(parts: Iterable[str]) -> str:
    listed = list(parts)
    return listed[0] if len(listed) == 1 else f"({'|'.join(listed)})"
