"""Which HTTP status says which error."""

from ml_platform.spec import (
    NoChampion,
    PlatformError,
    RequestRefused,
    StateError,
    StoreUnavailable,
    TooLate,
    UnknownName,
    WindowsLost,
)


def status_of(error: PlatformError) -> int:
    """400: the request is wrong; 503: not now; 504: not in time; 500: something is broken here."""
    if isinstance(error, RequestRefused | UnknownName):
        return 400
    if isinstance(error, NoChampion | StateError | StoreUnavailable | WindowsLost):
        return 503
    return 504 if isinstance(error, TooLate) else 500
