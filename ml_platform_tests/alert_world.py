"""A state folder whose incidents a test plants, and the whole chain that tells people of them, in real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import polars as pl

from ml_platform.resources.profiles import Profile
from ml_platform.serving.process import listen
from ml_platform.spec.incidents import Incident, incident_rows
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform_tests.receivers import MailServer, Webhook, receivers
from ml_platform_tests.services import alertmanager_command, must

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROJECT = "ml_platform.projects.flights"
SECONDS = 90  # for anything that takes two or three on a quiet machine


def incident(place: str, opened_on: date, **told: object) -> Incident:
    """One at a place written as in `ml-platform impact`, of the service delay."""
    family, _, rest = place.partition("/")
    table, _, column = rest.partition(".")
    made = Incident(
        id=f"delay/{place}/{opened_on}",
        service="delay",
        kind="contract",
        severity="page",
        family=family,
        table=table,
        column=column,
        opened_on=opened_on,
        last_seen=opened_on,
        sentence=f'{place} has been <wrong> & "odd" since {opened_on}: look at its check.',
    )
    return replace(made, **told)  # type: ignore[arg-type]


@dataclass
class Planted:
    """The incidents of one state folder, kept as the platform keeps them."""

    profile: Profile
    day: date
    open: dict[str, Incident] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(self.profile.lake, self.profile.storage_options)

    def plant(self, *incidents: Incident) -> None:
        self.open |= {one.id: one for one in incidents}
        self._write()

    def end(self, *incidents: Incident) -> None:
        """They are over on the next day."""
        self.day += timedelta(days=1)
        over = [replace(self.open.pop(one.id), closed_on=self.day) for one in incidents]
        self._write(*over)

    def next_day(self) -> None:
        self.day += timedelta(days=1)
        self._write()

    def _write(self, *over: Incident) -> None:
        lasting = [replace(one, last_seen=self.day) for one in self.open.values()]
        rows = incident_rows([*lasting, *over]).with_columns(pl.lit(self.day).alias(PARTITION))
        self.lake.replace("incidents/delay", rows, [self.day])


def ports(count: int) -> list[int]:
    """Free ones."""
    taken = [listen("127.0.0.1", 0) for _ in range(count)]
    found = [int(each.getsockname()[1]) for each in taken]
    for each in taken:
        each.close()
    return found


def with_changes(path: Path, changes: Mapping[str, str]) -> str:
    """A shipped file with other addresses and times; each must occur in it."""
    text = path.read_text()
    for old, new in changes.items():
        assert old in text, f"{path.name} does not hold {old!r}"
        text = text.replace(old, new)
    return text


class Program:
    """A process that may be killed and started again as it was."""

    def __init__(self, name: str, command: list[str], folder: Path, ready: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.command, self.folder, self.ready = command, folder, ready
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / f"{self.name}.txt").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        until(self.answers, lambda: f"{self.name} to answer; see {log.name}")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended; see {self.folder}"
        port, _, path = self.ready.partition("/")
        connection = HTTPConnection("127.0.0.1", int(port), timeout=10)
        try:
            connection.request("GET", f"/{path}")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """With -9; returns when it is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def until(true: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait for something that comes."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited {SECONDS} s for {what()}"
        time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Exporter, Prometheus, Alertmanager, and who they tell."""

    planted: Planted
    exporter: Program
    prometheus: Program
    alertmanager: Program
    webhook: Webhook
    mail: MailServer

    def understands(self, query: str) -> bool:
        """Whether Prometheus takes it."""
        connection = HTTPConnection("127.0.0.1", int(self.prometheus.ready.partition("/")[0]), timeout=30)
        connection.request("GET", f"/api/v1/query?{urlencode({'query': query})}")
        return bool(json.loads(connection.getresponse().read())["status"] == "success")


@contextmanager
def chain(folder: Path) -> Iterator[Chain]:
    """The shipped files with ports of this machine, and seconds where they have minutes."""
    profile = Profile.at(folder / "state", project=PROJECT)
    planted = Planted(profile, datetime.now(UTC).date() - timedelta(days=9))
    exported, scraped, routed = ports(3)
    with receivers() as (webhook, mail):
        (folder / "webhook").write_text(webhook.url)
        configure(folder, exported, routed, mail.port)
        cli = [sys.executable, "-m", "ml_platform.cli", "metrics", "--port", str(exported)]
        rules = [
            str(must("prometheus")),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/tsdb",
        ]
        routes = [*alertmanager_command(), f"--config.file={folder}/alertmanager.yml"]
        routes += [f"--storage.path={folder}/sent", "--data.retention=2160h", "--data.maintenance-interval=1s"]
        programs = (
            Program(
                "exporter",
                cli,
                folder,
                f"{exported}/livez",
                {"ML_PLATFORM_HOME": str(profile.home), "ML_PLATFORM_DAGSTER_UI": "http://dagster.example"},
            ),
            Program(
                "prometheus",
                [*rules, f"--web.listen-address=127.0.0.1:{scraped}", "--rules.alert.resend-delay=2s"],
                folder,
                f"{scraped}/-/ready",
                {},
            ),
            Program(
                "alertmanager",
                [*routes, f"--web.listen-address=127.0.0.1:{routed}", "--cluster.listen-address="],
                folder,
                f"{routed}/-/ready",
                {},
            ),
        )
        try:
            for each in programs:
                each.start()
            exporter, prometheus, alertmanager = programs
            yield Chain(
                planted=planted,
                exporter=exporter,
                prometheus=prometheus,
                alertmanager=alertmanager,
                webhook=webhook,
                mail=mail,
            )
        finally:
            for each in programs:
                each.kill()


def configure(folder: Path, exported: int, routed: int, mail: int) -> None:
    """Write both configurations and what they read."""
    (folder / "smtp_password").write_text("secret")
    prometheus = {
        "/etc/prometheus/": f"{folder}/",
        "15s": "1s",
        "30s": "1s",
        "25s": "1s",
        "platform.internal:9109": f"127.0.0.1:{exported}",
        "alertmanager.internal:9093": f"127.0.0.1:{routed}",
        "delay-0.internal:3000, delay-1.internal:3000": "",
    }
    alertmanager = {
        "/etc/alertmanager/": f"{folder}/",
        "mail.internal:587": f"127.0.0.1:{mail}",
        "smtp_require_tls: true": "smtp_require_tls: false",
        "  smtp_auth_username: platform@example.com\n": "",
        f"  smtp_auth_password_file: {folder}/smtp_password\n": "",
        "group_wait: 30s": "group_wait: 3s",
        "group_interval: 1m": "group_interval: 1s",
    }
    (folder / "prometheus.yml").write_text(with_changes(DEPLOY / "prometheus" / "prometheus.yml", prometheus))
    for name in ("platform.yaml", "serving.yaml"):
        (folder / name).write_text((DEPLOY / "prometheus" / name).read_text())
    (folder / "key").write_text("none")
    (folder / "alertmanager.yml").write_text(with_changes(DEPLOY / "alertmanager" / "alertmanager.yml", alertmanager))
    (folder / "ml_platform.tmpl").write_text((DEPLOY / "alertmanager" / "ml_platform.tmpl").read_text())
