"""Where everything lives: the only place that reads the environment.

Plain Python without Dagster, so that the serving process can read it, too.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args

from ml_platform.spec import DeclarationError
from ml_platform.stores.channels import Channels
from ml_platform.stores.pages import Pages

PROFILES = ("embedded", "production")
Demands = Literal["auto", "required", "open"]
MLFLOW_UI, DAGSTER_UI = "ML_PLATFORM_MLFLOW_UI", "ML_PLATFORM_DAGSTER_UI"
DAGSTER_PORT, MLFLOW_PORT = 3001, 3002  # where `ml-platform ui` shows both, unless it is told otherwise


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The addresses of one installation.

    home: the one folder that everything local is written under.
    lake: root of the Delta tables, a local path or ``s3://bucket/prefix``.
    pages: where people find the pages of MLflow and Dagster.
    ray_address: of the head (host:port) of the Ray cluster that this machine is part of.
    keys: whether services ask for keys: those that have some (auto), always, or never (something in front does).
    image: the folder of the one version that a service in an image answers with; None: the registry says which.
    channels: where messages about incidents go; none where Alertmanager tells people, or nobody wants to know.
    """

    name: str
    home: Path
    project: str
    lake: str
    storage_options: Mapping[str, str]
    mlflow_uri: str
    mlflow_artifacts: str
    pages: Pages
    dagster_storage: str | None = None
    redis_url: str | None = None
    ray_address: str | None = None
    keys: Demands = "auto"
    image: Path | None = None
    channels: Channels = field(default_factory=Channels)

    @property
    def online_address(self) -> str | Path:
        """Where the online store is: a Redis URL in production, else a SQLite file; ``online_store`` opens either."""
        return self.redis_url or self.online_path

    @property
    def online_path(self) -> Path:
        """The embedded online store, a SQLite file in Feast's layout."""
        return self.home / "feast_online.db"

    @property
    def live_path(self) -> Path:
        """The embedded store of live windows."""
        return self.home / "live.db"

    @property
    def log_path(self) -> Path:
        """The services' write-ahead logs."""
        return self.home / "log"

    @property
    def clock_path(self) -> Path:
        """The replay's clock, where time is replayed."""
        return self.home / "clock.json"

    @property
    def studies_path(self) -> Path:
        """The database of searches for parameters."""
        return self.home / "studies.db"

    @property
    def checkpoints_path(self) -> Path:
        """What workers that train together keep until they are done."""
        return self.home / "checkpoints"

    @property
    def backtest_path(self) -> Path:
        """Versions that backtests trained; safe to delete, they are trained again."""
        return self.home / "backtest"

    @property
    def ledger_path(self) -> Path:
        """The ledger of decisions, verdicts and alias moves."""
        return self.home / "ledger.db"

    @property
    def outbox_path(self) -> Path:
        """What people were told, and what waits to be."""
        return self.home / "alerts.db"

    @property
    def serving_path(self) -> Path:
        """Where the services' rollouts stand."""
        return self.home / "serving"

    @property
    def reports_path(self) -> Path:
        """HTML pages for people."""
        return self.home / "reports"

    @property
    def dagster_home(self) -> Path:
        """Dagster's own state."""
        return self.home / "dagster"

    @classmethod
    def at(cls, home: Path, *, project: str = "ml_platform.projects.flights") -> "Profile":
        """The embedded profile under ``home``: no server of any kind."""
        home = home.absolute()
        return cls(
            name="embedded",
            home=home,
            project=project,
            lake=str(home / "lake"),
            storage_options={},
            mlflow_uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
            mlflow_artifacts=(home / "mlflow" / "artifacts").as_uri(),
            pages=pages_on(DAGSTER_PORT, MLFLOW_PORT),
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, *, image: Path | None = None) -> "Profile":
        """Read ``ML_PLATFORM_PROFILE``, ``_HOME``, ``_PROJECT``, ``_MLFLOW_UI``, ``_DAGSTER_UI``, ``_RAY_ADDRESS``,
        ``_KEYS``, ``_IMAGE``, ``_ALERTS_WEBHOOK``, ``_ALERTS_SMTP``, ``_ALERTS_FROM``, ``_ALERTS_TO`` and the
        production addresses.

        image: whatever the setting says.

        Raises:
            DeclarationError: the profile or the word about keys is unknown, an address for alerts is none, or
                production misses an address.
        """
        env = os.environ if environment is None else environment
        name = env.get("ML_PLATFORM_PROFILE", "embedded")
        if name not in PROFILES:
            raise DeclarationError(f"ML_PLATFORM_PROFILE is {name!r}; it must be one of {', '.join(PROFILES)}")
        home = Path(env.get("ML_PLATFORM_HOME") or ".ml_platform")
        embedded = replace(
            cls.at(home, project=env.get("ML_PLATFORM_PROJECT", "ml_platform.projects.flights")),
            ray_address=env.get("ML_PLATFORM_RAY_ADDRESS") or None,
            keys=_demands(env.get("ML_PLATFORM_KEYS") or "auto"),
            image=image or (Path(env["ML_PLATFORM_IMAGE"]) if env.get("ML_PLATFORM_IMAGE") else None),
            channels=_channels(env),
        )
        found = embedded if name == "embedded" else _production(embedded, env)
        return replace(found, pages=_pages(found.pages, env))


def _demands(word: str) -> Demands:
    if word not in get_args(Demands):
        raise DeclarationError(f"ML_PLATFORM_KEYS is {word!r}; it must be one of {', '.join(get_args(Demands))}")
    return cast(Demands, word)


def _channels(env: Mapping[str, str]) -> Channels:
    said = {name: env.get(f"ML_PLATFORM_ALERTS_{name}", "") for name in ("WEBHOOK", "SMTP", "FROM", "TO")}
    receivers = tuple(filter(None, (receiver.strip() for receiver in said["TO"].split(","))))
    return Channels(webhook=said["WEBHOOK"], smtp=said["SMTP"], sender=said["FROM"], receivers=receivers)


def pages_on(dagster_port: int, mlflow_port: int, host: str = "127.0.0.1") -> Pages:
    """Where `ml-platform ui` shows MLflow and Dagster."""
    return Pages(mlflow=f"http://{host}:{mlflow_port}", dagster=f"http://{host}:{dagster_port}")


def _of_server(default: Pages, mlflow_uri: str) -> Pages:
    """A server shows its own pages; a database has none, and its address may hold a password."""
    return replace(default, mlflow=mlflow_uri) if mlflow_uri.startswith("http") else default


def _pages(default: Pages, env: Mapping[str, str]) -> Pages:
    mlflow, dagster = (
        (env.get(variable) or known).rstrip("/")
        for variable, known in ((MLFLOW_UI, default.mlflow), (DAGSTER_UI, default.dagster))
    )
    return Pages(mlflow=mlflow, dagster=dagster)


def _production(embedded: Profile, env: Mapping[str, str]) -> Profile:
    wanted: tuple[str, ...] = (
        "ML_PLATFORM_LAKE",
        "ML_PLATFORM_MLFLOW_URI",
        "ML_PLATFORM_MLFLOW_ARTIFACTS",
        "ML_PLATFORM_POSTGRES_URL",
        "ML_PLATFORM_REDIS_URL",
    )
    if embedded.image is not None:  # it brings its version along, and decides nothing
        wanted = ("ML_PLATFORM_REDIS_URL",)
    missing = [variable for variable in wanted if not env.get(variable)]
    if missing:
        raise DeclarationError(f"the production profile needs {', '.join(missing)}; see deploy/production.md")
    storage = {
        option: env[variable]
        for option, variable in {
            "AWS_ENDPOINT_URL": "AWS_ENDPOINT_URL",
            "AWS_REGION": "AWS_REGION",
            "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
        }.items()
        if env.get(variable)
    }
    if storage.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        storage["AWS_ALLOW_HTTP"] = "true"
    return replace(
        embedded,
        name="production",
        lake=env.get("ML_PLATFORM_LAKE") or embedded.lake,
        storage_options=storage,
        mlflow_uri=env.get("ML_PLATFORM_MLFLOW_URI") or embedded.mlflow_uri,
        mlflow_artifacts=env.get("ML_PLATFORM_MLFLOW_ARTIFACTS") or embedded.mlflow_artifacts,
        pages=_of_server(embedded.pages, env.get("ML_PLATFORM_MLFLOW_URI", "")),
        dagster_storage=env.get("ML_PLATFORM_POSTGRES_URL"),
        redis_url=env["ML_PLATFORM_REDIS_URL"],
    )
