"""Stage 7: the service and batch predictions.

``from ml_platform.serving import Client`` is what a caller of a service needs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_platform.serving.client import Client as Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """``Client``, loaded when it is asked for."""
    if name == "Client":
        from ml_platform.serving.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
