"""Markers: a test that needs a service says so; where the service is absent it is skipped, and fails in CI."""

import os
import socket

import pytest

# Fixtures shared by the tests of automation.
from ml_platform_tests.automation_world import bootstrapped, replay  # noqa: F401

# Where the services of the tests listen; set them to use others.
ADDRESSES = {
    "postgres": (os.environ.get("TEST_POSTGRES_HOST", "127.0.0.1"), int(os.environ.get("TEST_POSTGRES_PORT", "5432"))),
    "redis": (os.environ.get("TEST_REDIS_HOST", "127.0.0.1"), int(os.environ.get("TEST_REDIS_PORT", "6379"))),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look whether the services named by ``@pytest.mark.service("postgres")`` are there."""
    for name in (name for marker in item.iter_markers("service") for name in marker.args):
        reason = _absent(name)
        if reason and os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        if reason:
            pytest.skip(reason)


def _absent(name: str) -> str | None:
    host, port = ADDRESSES[name]
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError as error:
        upper = name.upper()
        return f"no {name} at {host}:{port} ({error}); start one or set TEST_{upper}_HOST and TEST_{upper}_PORT"
    return None
