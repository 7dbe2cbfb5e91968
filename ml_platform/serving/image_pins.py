"""Which locked packages a serving process needs: those that it imports, and what these need in turn."""

import ast
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ml_platform.spec import DeclarationError

LOCK = "requirements.lock"
# What the serving process imports; a test starts one that sees nothing but what comes of these.
SERVING = (
    "bentoml",
    "click",
    "deltalake",  # tables that contracts of posted events refer to
    "hiredis",
    "httptools",
    "mmh3",
    "msgspec",
    "numpy",
    "polars",
    "prometheus-client",
    "pyarrow",
    "pydantic",
    "redis",
    "sqlalchemy",
    "starlette",
    "tzdata",  # a slim image has no time zones of its own
    "uvicorn",
    "uvloop",
)
ESTIMATORS: Mapping[str, tuple[str, ...]] = {
    "lightgbm": ("lightgbm",),
    "torch": ("torch",),
    "sklearn": ("scikit-learn", "skops"),
    "blend": (),
}


def locked(path: Path) -> dict[str, str]:
    """Name -> exact version, of every line of a lock.

    Raises:
        DeclarationError: it is not there, or a line is no pin.
    """
    if not path.is_file():
        raise DeclarationError(f"there is no lock at {path}; name {LOCK} of the platform by --lock")
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s]+", line)]
    if wrong:
        raise DeclarationError(f"{path} holds {wrong[0]!r}, which is no pin such as polars==2.1.0")
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def pins(lock: Mapping[str, str], roots: Iterable[str]) -> list[str]:
    """Lines of a requirements file: the roots and all that they need here (extras only where one asks for them).

    Raises:
        DeclarationError: one of the roots is not locked or not installed.
    """
    waiting: list[tuple[str, frozenset[str]]] = [(canonicalize_name(root), frozenset()) for root in roots]
    missing = sorted({name for name, _ in waiting if name not in lock})
    if missing:
        raise DeclarationError(f"{', '.join(missing)} is not in the lock; add it to pyproject.toml and `make lock`")
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = one = waiting.pop()
        if one not in seen and name in lock:
            seen.add(one)
            waiting += _needed(name, extras)
    return [f"{name}=={lock[name]}" for name in sorted({name for name, _ in seen})]


def _needed(name: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    try:
        found = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError as error:
        raise DeclarationError(f"{name} is locked but not installed here; install {LOCK} and try again") from error
    return [
        (canonicalize_name(each.name), frozenset(each.extras))
        for each in found
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
    ]


def imported_by(packages: Sequence[str]) -> set[str]:
    """The distributions that the loaded modules of these packages import when they are loaded."""
    offered, found = packages_distributions(), set[str]()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(name == package or name.startswith(f"{package}.") for package in packages):
            found |= {each.partition(".")[0] for each in _imports(Path(file))}
    names: set[str] = {canonicalize_name(dist) for top in found for dist in offered.get(top, [])[:1]}
    return names - {"ml-platform"}


def _imports(file: Path) -> set[str]:
    """Of a module, but not of its functions: those are imported when they are called."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names
