"""MLflow's files, wherever they are: a folder of this machine, or a bucket."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ml_platform.stores.text_files import replace_text
from ml_platform.stores.tracking import quiet_mlflow


@dataclass(frozen=True)
class Artifacts:
    """All files under one address, by their path from there."""

    address: str

    @property
    def folder(self) -> Path | None:
        """Where they lie on this machine; None if they lie elsewhere."""
        parsed = urlparse(self.address)
        return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None

    def paths(self) -> Iterator[str]:
        """Every file, in order."""
        folder = self.folder
        if folder is None:
            yield from self._listed(None)
        elif folder.is_dir():
            yield from sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def read(self, path: str) -> bytes:
        """A file's content."""
        if self.folder is not None:
            return (self.folder / path).read_bytes()
        with tempfile.TemporaryDirectory() as draft:
            return Path(self._repository.download_artifacts(path, draft)).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        """Put another content in its place; whole or not at all."""
        if self.folder is not None:
            replace_text(self.folder / path, content)
            return
        above, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(content)
            self._repository.log_artifact(str(Path(folder) / name), above or None)

    @property
    def _repository(self) -> Any:
        quiet_mlflow()
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self.address)

    def _listed(self, folder: str | None) -> Iterator[str]:
        for entry in self._repository.list_artifacts(folder):
            if entry.is_dir:
                yield from self._listed(entry.path)
            else:
                yield entry.path
