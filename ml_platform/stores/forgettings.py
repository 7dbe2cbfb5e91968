"""The ledger's lines about forgetting: which versions of tables are gone, and what models were trained on.

Whoever is asked to reproduce something reads here why it cannot be done any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_platform.stores.ledger import Entry, Ledger

FORGETTING = "forgetting"  # the ledger's kind of line; its subject is the project
# The registry's tags of a version: how many rows that it was made of are gone, and since when.
ROWS, AT = "forgotten_rows", "forgotten_at"


@dataclass(frozen=True, kw_only=True)
class Gone:
    """What forgettings left of the past.

    readable_from: table of the lake -> its first version that can be opened; a table that is not named is whole.
    rows: model -> version -> how many rows that it was trained or judged on are gone.
    """

    readable_from: Mapping[str, int]
    rows: Mapping[str, Mapping[int, int]]

    def why_not(self, table: str, version: int) -> str | None:
        """Why this version of a table cannot be read again, or None if no forgetting keeps it from being read."""
        first = self.readable_from.get(table, 0)
        if version >= first:
            return None
        return f"version {version} of {table} is gone: an entity was forgotten, and versions before {first} with it"


def note_forgetting(ledger: Ledger, project: str, key: str, at: datetime, body: Mapping[str, Any]) -> Entry:
    """Write a forgetting down, once for its key.

    body: ``entity`` (the name), ``digest`` (the salted hash of its value), ``held`` (place -> count), ``models``
        (model -> version -> rows), ``readable_from`` (table -> version), ``remains`` (places).
    """
    return ledger.write(FORGETTING, project, key, at, body)


def forgettings(ledger: Ledger, project: str) -> Sequence[Entry]:
    """All of them, oldest first."""
    return ledger.entries(FORGETTING, project)


def gone(ledger: Ledger, project: str) -> Gone:
    """What all forgettings together left."""
    readable_from: dict[str, int] = {}
    rows: dict[str, dict[int, int]] = {}
    for entry in forgettings(ledger, project):
        for table, version in entry.body["readable_from"].items():
            readable_from[table] = max(int(version), readable_from.get(table, 0))
        for model, versions in entry.body["models"].items():
            of_model = rows.setdefault(model, {})
            for version, count in versions.items():
                of_model[int(version)] = of_model.get(int(version), 0) + int(count)
    return Gone(readable_from=readable_from, rows=rows)
