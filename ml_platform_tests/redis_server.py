"""A Redis server of a test's own, which may be killed and started again."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

KEEPS = ("--appendonly", "yes", "--appendfsync", "always")  # what it was told, when it is killed


class Server:
    """On a free port of the loopback interface; without ``KEEPS`` it forgets everything when it ends."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        binary = shutil.which("redis-server")
        if binary is None:
            reason = "no redis-server to start; install Redis"
            pytest.fail(reason, pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(reason)
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *options]
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self.process = subprocess.Popen(self._command, cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline, f"redis-server does not answer on {self.port}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port) as client:
                client.ping()
        except redis.AuthenticationError:
            return True  # it wants a password
        except redis.RedisError:
            return False
        return True

    def kill(self) -> None:
        """Returns when it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that runs, and keeps nothing on the disk."""
    own = Server(tmp_path)
    own.start()
    yield own
    own.kill()
