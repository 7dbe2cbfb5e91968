"""What a training set and a model version were made of: enough to make them again and to compare."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any

from ml_platform.spec.errors import ModelRefused


@dataclass(frozen=True, kw_only=True)
class TableVersion:
    """A Delta table as it was read: its version, and a digest of the names of its files, which are never reused."""

    version: int
    files: str


@dataclass(frozen=True, kw_only=True)
class SetManifest:
    """A training set: what it was read from and what came out.

    gathered_at: ISO time as of which labels were known. declared: fingerprint of the model, task and views.
    rows: by part. content_hash: over names, types and values in the set's total order.
    label_maturity: share (0..1) of the holdout's events whose outcome was known. bounds: ISO times of each part.
    """

    gathered_at: str
    tables: Mapping[str, TableVersion]
    declared: str
    rows: Mapping[str, int]
    content_hash: str
    label_maturity: float
    bounds: Mapping[str, str]

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "SetManifest":
        """Back from ``dataclasses.asdict``.

        Raises:
            KeyError, TypeError: something is missing or of another shape.
        """
        tables = {name: TableVersion(**version) for name, version in stored["tables"].items()}
        return cls(**{**_known(cls, stored), "tables": tables})


@dataclass(frozen=True, kw_only=True)
class CodeVersion:
    """The code: a digest of all sources of platform, project and feature views; the commit where there is a repository.

    clean: whether the tree was the commit's (None: there is no repository).
    """

    sources: str
    commit: str | None
    clean: bool | None


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Interpreter, machine and every installed package (name -> version); ``digest`` is over all of it."""

    python: str
    platform: str
    packages: Mapping[str, str]
    digest: str

    @classmethod
    def of(cls, python: str, platform: str, packages: Mapping[str, str]) -> "Environment":
        """With its digest."""
        text = json.dumps([python, platform, sorted(packages.items())])
        digest = sha256(text.encode()).hexdigest()
        return cls(python=python, platform=platform, packages=dict(sorted(packages.items())), digest=digest)


@dataclass(frozen=True, kw_only=True)
class RunManifest:
    """Everything a model version was made of.

    files: digest of each of the model's files. train_window and holdout are seconds (None: all history).
    compute, workers: who trained it; of workers their count and threads (empty: the process that asked).
    """

    model: str
    estimator: str
    parameters: Mapping[str, Any]
    seed: int
    train_window: float | None
    holdout: float
    min_rows: int
    views: tuple[str, ...]
    training_set: SetManifest
    threads: int
    device: str
    code: CodeVersion
    environment: Environment
    files: Mapping[str, str]
    measures: Mapping[str, float]
    # A version that was registered before there were workers was trained without.
    compute: str = "local"
    workers: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Over everything that it says."""
        return _digest(asdict(self))

    def to_json(self) -> str:
        """The text that is stored, with its digest."""
        return json.dumps({"sha256": self.digest, "manifest": asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "RunManifest":
        """Back from ``to_json``.

        Raises:
            ModelRefused: the text was changed since, or is no manifest.
        """
        try:
            stored = json.loads(text)
            body = stored["manifest"]
            if _digest(body) != stored["sha256"]:
                raise ModelRefused("the run manifest does not verify: it was changed after it was written; restore it")
            made = {
                "training_set": SetManifest.from_json(body["training_set"]),
                "code": CodeVersion(**body["code"]),
                "environment": Environment(**body["environment"]),
                "views": tuple(body["views"]),
            }
            return cls(**{**_known(cls, body), **made})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelRefused(f"this is no run manifest ({error!r}); train the model again") from error


def _digest(body: Mapping[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _known(cls: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored fields that the class has: a later version of the platform may have written more."""
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in stored.items() if name in names}
