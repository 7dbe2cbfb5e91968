"""Addresses of the services that tests use, and where a service stands apart from the machine's network."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

# Where the services of the tests listen; set them to use others.
ADDRESSES = {
    "postgres": (os.environ.get("TEST_POSTGRES_HOST", "127.0.0.1"), int(os.environ.get("TEST_POSTGRES_PORT", "5432"))),
    "redis": (os.environ.get("TEST_REDIS_HOST", "127.0.0.1"), int(os.environ.get("TEST_REDIS_PORT", "6379"))),
}
# Programs that tests start, by the names that distributions give them; `make services` fetches them into .debian/.
PROGRAMS = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "amtool": ("amtool",),
    "nginx": ("nginx",),
}
_FETCHED = Path(__file__).parent.parent / ".debian" / "root" / "usr"
# A network and processes of their own, which end with what is started in them.
APART = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def why_no_ray() -> str | None:
    """Why no Ray cluster can stand here, apart."""
    if find_spec("ray") is None:
        return "ray is not installed; pip install 'ml-platform[ray]'"
    try:
        tried = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no unshare (util-linux) to give Ray a network of its own"
    return f"no network of its own for Ray: {tried.stderr.strip()}" if tried.returncode else None


def program(name: str) -> Path | None:
    """Where a program is: as `make services` fetched it, or else on the PATH; None: it is not there."""
    folders = os.pathsep.join([str(_FETCHED / "bin"), str(_FETCHED / "sbin"), os.environ.get("PATH", "")])
    found = (shutil.which(each, path=folders) for each in PROGRAMS[name])
    return next((Path(path) for path in found if path), None)


def why_no_program(name: str) -> str | None:
    """Why it cannot be started."""
    if program(name) is None:
        return f"no {name} here; `make services` fetches it from Debian, without any rights"
    if name == "alertmanager" and not _TEMPLATES.exists():
        tried = subprocess.run([*alertmanager_command(), "--version"], capture_output=True, text=True, check=False)
        return f"no mounts of its own for Alertmanager: {tried.stderr.strip()}" if tried.returncode else None
    return None


# Debian's Alertmanager looks for its templates there and nowhere else.
_TEMPLATES = Path("/usr/share/prometheus/alertmanager/default.tmpl")


def alertmanager_command() -> list[str]:
    """The command: where its templates are not installed, it sees those that were fetched in their place."""
    found = str(must("alertmanager"))
    if _TEMPLATES.exists() or not Path(found).is_relative_to(_FETCHED):
        return [found]
    seen = f'mount --bind "{_FETCHED}/share" /usr/share && exec "$0" "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", seen, found]


def must(name: str) -> Path:
    """A program that a marker has looked for."""
    found = program(name)
    assert found is not None, why_no_program(name)
    return found
