"""A version as an image holds it: its files, and the manifest that says which they are; no registry at run time.

``ml-platform image`` writes it. ``python -m ml_platform.serving.shipped FOLDER`` serves exactly that version, in this
one process: a container is restarted by whoever runs it, so nothing here has to.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_platform.resources.profiles import Profile
from ml_platform.spec import HomeDamaged, ModelRefused, PlatformError
from ml_platform.stores.home import read_json, write_json
from ml_platform.stores.model_files import taken
from ml_platform.stores.tracking import ModelVersion

FORMAT = 1  # of the manifest
MANIFEST, MODEL = "manifest.json", "model"  # in the folder of an image
PORT = 3000


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """What an image's manifest says.

    digests: SHA-256 of each of the version's files, by path. project: the package of the declarations. allowed: the
    ledger's line by which the version may serve, or that it was shipped without one.
    """

    service: str
    model: str
    version: str
    project: str
    made: datetime
    digests: Mapping[str, str]
    allowed: Mapping[str, Any]
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> "Shipped":
        """The manifest in an image's folder; the files are looked at when they are taken.

        Raises:
            ModelRefused: there is none that can be read.
        """
        path = folder / MANIFEST
        try:
            body = read_json(path)
            if body.pop("format") != FORMAT:
                raise ModelRefused(
                    f"{path} is of another format than {FORMAT}; make the image again with this platform"
                )
            return cls(**{**body, "made": datetime.fromisoformat(body["made"])}, folder=folder)
        except (OSError, HomeDamaged, KeyError, TypeError, ValueError) as error:
            raise ModelRefused(
                f"{folder} holds no manifest of an image ({error}); `ml-platform image SERVICE --to FOLDER` makes one"
            ) from error

    def write(self) -> None:
        """Put the manifest into the folder."""
        body = {name: value for name, value in asdict(self).items() if name != "folder"}
        write_json(self.folder / MANIFEST, {"format": FORMAT, **body, "made": self.made.isoformat()})

    @contextmanager
    def files(self, scratch: Path) -> Iterator[Path]:
        """A folder with the version's files, each looked at; for the length of a ``with`` block.

        Raises:
            ModelRefused: a file is missing or another one.
        """
        name = f"version {self.version} of {self.model}"
        with tempfile.TemporaryDirectory(dir=scratch) as target:
            yield taken(self.folder / MODEL, self.digests, Path(target), name)

    def registered(self) -> ModelVersion:
        """As a registry would name it."""
        return ModelVersion(
            name=self.model,
            version=int(self.version),
            run_id="",
            folder_uri=(self.folder / MODEL).as_uri(),
            created=self.made,
        )


def profile_of(folder: Path) -> tuple[Profile, Shipped]:
    """The settings of the process that serves what a folder holds, and that.

    Raises:
        ModelRefused: it holds nothing that can be served.
    """
    folder = folder.absolute()
    shipped = Shipped.read(folder)
    return replace(Profile.from_environment(image=folder), project=shipped.project), shipped


def bento(folder: Path) -> Any:
    """The service for BentoML's own commands.

    Raises:
        ModelRefused: as ``profile_of``.
    """
    from ml_platform.serving.service import prediction_service

    profile, shipped = profile_of(folder)
    return prediction_service(profile, shipped.service)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve what the folder holds until SIGTERM."""
    from ml_platform.serving.access import refuse_strangers
    from ml_platform.serving.child import run
    from ml_platform.serving.process import LOOPBACK, begin_counting, environment_of, listen

    parser = argparse.ArgumentParser(description="Serve exactly the version that this image holds.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--open", action="store_true", help="without keys beyond loopback: something in front asks")
    asked = parser.parse_args(arguments)
    try:
        profile, shipped = profile_of(asked.folder)
        if asked.open:
            profile = replace(profile, keys="open")
        refuse_strangers(profile, shipped.service, asked.host)
        with shipped.files(Path(tempfile.gettempdir())):
            pass  # a file that was changed is told before anything heavy is loaded
        begin_counting(profile, shipped.service)
        os.environ.update(environment_of(profile, shipped.service))
        with listen(asked.host, asked.port) as listening:
            bound = listening.getsockname()[1]
            _say(f"version {shipped.version} of {shipped.model} answers on http://{asked.host}:{bound}")
            run(shipped.service, listening)
    except PlatformError as error:
        _say(f"error: {error}")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
