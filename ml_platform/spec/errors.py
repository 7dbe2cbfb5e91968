"""Every error the platform raises on purpose.

PlatformError
├── DeclarationError      a declaration is wrong, clashes or names something that does not exist
│   └── UnknownName       a name that nothing declares (the near ones are offered)
├── SourceError           a source could not be read
│   └── SchemaChanged     a source's columns are not those of its declaration
├── ContractBroken        a rule that stops the table failed, or too much was quarantined
│   └── ColumnRefused     what is to be made reads a column that its table's contract refused for the day
├── MissingHistory        partitions that a computation looks back on are not there
│   └── WindowsLost       events that live windows look back on are not, or not surely, in their store any more
├── TooFewLabels          not enough mature labels to train or to judge
├── NoChampion            the model has no champion yet
├── ModelRefused          a version that could not be loaded or checked
├── NotExplained          a prediction that cannot be explained: unknown, without its vector, or its model is gone
├── NoContributions       a model of a family of which nobody can say what each input added
├── WordRefused           what a person asked for with a version (to approve, reject, adopt it) cannot be done
├── ServiceError          the prediction service did not start, or answered with an error
│   ├── RequestRefused    a request that the service does not accept; names row and field
│   ├── TooLate           a request whose turn did not come in time
│   └── PortInUse         somebody else listens on the asked port
├── NotDelivered          a message that a webhook or a mail server did not take; it is tried again later
├── StoreUnavailable      a store that cannot be reached, or that refuses what it is asked
└── StateError            the state folder cannot be used as it is
    ├── HomeLocked        another process works on it
    ├── LedgerBroken      lines of its ledger were changed, removed, inserted, reordered or cut off
    └── HomeDamaged       it holds something that this platform did not write, or half a file
"""

import difflib
from collections.abc import Iterable


class PlatformError(Exception):
    """Base of all; the message says what, where and what next."""


class DeclarationError(PlatformError):
    """A declaration is wrong, clashes with another or is incomplete."""


class UnknownName(DeclarationError):
    """A name that nothing declares."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
        super().__init__(f"there is no {kind} named {name!r}; {hint}")


class SourceError(PlatformError):
    """A source could not be read."""


class SchemaChanged(SourceError):
    """A source's columns or types are not those of its declaration."""


class ContractBroken(PlatformError):
    """A rule that stops the table failed, or more rows were quarantined than allowed."""


class ColumnRefused(ContractBroken):
    """What is to be made reads a column that its table's contract refused for the day."""


class MissingHistory(PlatformError):
    """Partitions that a computation looks back on are not there."""


class WindowsLost(MissingHistory):
    """Live windows whose store lost events, or may have; the message says which and how they come back."""


class TooFewLabels(PlatformError):
    """Not enough mature labels to train or to judge."""


class NoChampion(PlatformError):
    """The model has no champion yet."""


class ModelRefused(PlatformError):
    """A model version that could not be loaded or failed its check; the one before stays."""


class NotExplained(PlatformError):
    """A prediction that cannot be explained; says where was looked, or what of it is gone."""


class NoContributions(PlatformError):
    """The model's family does not add its inputs up, so nothing honest can be said; the message says why."""


class WordRefused(PlatformError):
    """What a person asked for with a version cannot be done; nothing was changed."""


class ServiceError(PlatformError):
    """The prediction service did not start, or answered with an error."""


class RequestRefused(ServiceError):
    """A request that the service does not accept; the message names row and field."""


class TooLate(ServiceError):
    """A request whose turn did not come in time; nothing was done for it."""


class PortInUse(ServiceError):
    """Somebody else listens on the asked port."""


class NotDelivered(PlatformError):
    """A message that a channel did not take; what was to be sent is kept and tried again.

    after: seconds that the other side asked to wait, if it did.
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class StoreUnavailable(PlatformError):
    """A store that cannot be reached, or that refuses what it is asked; the next call tries again."""


class StateError(PlatformError):
    """The state folder cannot be used as it is."""


class HomeLocked(StateError):
    """Another process works on the state folder."""


class LedgerBroken(StateError):
    """Lines of the ledger are not those that were written; the message names them."""


class HomeDamaged(StateError):
    """The state folder holds something foreign or half-written."""
