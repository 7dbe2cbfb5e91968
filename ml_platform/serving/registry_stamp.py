"""When the registry last changed, where that is cheap to know: looking at it through MLflow costs milliseconds."""

from pathlib import Path


def changed_at(uri: str) -> object:
    """Equal for two moments between which nothing was written to a registry in SQLite; else never equal."""
    path = uri.removeprefix("sqlite:///")
    if path == uri:
        return object()
    found: list[tuple[int, int, int] | None] = []
    for file in (path, f"{path}-wal"):
        try:
            stat = Path(file).stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)
