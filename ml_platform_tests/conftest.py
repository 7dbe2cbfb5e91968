"""Markers: a test that needs a service says so; where the service is absent it is skipped, and fails in CI."""

import os
import socket

import pytest

# Fixtures shared by the tests of automation, of the production profile, of Redis and of replayed state folders.
from ml_platform_tests.automation_world import bootstrapped, replay  # noqa: F401
from ml_platform_tests.production_world import postgres_url, production, s3_endpoint  # noqa: F401
from ml_platform_tests.redis_server import server  # noqa: F401
from ml_platform_tests.replay_world import folder, home  # noqa: F401
from ml_platform_tests.services import ADDRESSES, PROGRAMS, why_no_program, why_no_ray


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look whether the services named by ``@pytest.mark.service("postgres")`` are there."""
    for name in (name for marker in item.iter_markers("service") for name in marker.args):
        reason = _absent(name)
        if reason and os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        if reason:
            pytest.skip(reason)


def _absent(name: str) -> str | None:
    if name == "ray":
        return why_no_ray()
    if name in PROGRAMS:
        return why_no_program(name)
    host, port = ADDRESSES[name]
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError as error:
        upper = name.upper()
        return f"no {name} at {host}:{port} ({error}); start one or set TEST_{upper}_HOST and TEST_{upper}_PORT"
    return None
