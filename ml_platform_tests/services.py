"""Addresses of the services that tests use, and where a service stands apart from the machine's network."""

import os
import subprocess
from importlib.util import find_spec

# Where the services of the tests listen; set them to use others.
ADDRESSES = {
    "postgres": (os.environ.get("TEST_POSTGRES_HOST", "127.0.0.1"), int(os.environ.get("TEST_POSTGRES_PORT", "5432"))),
    "redis": (os.environ.get("TEST_REDIS_HOST", "127.0.0.1"), int(os.environ.get("TEST_REDIS_PORT", "6379"))),
}
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
