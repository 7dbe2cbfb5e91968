"""Where several workers can train one model, and whether that is possible here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from ml_platform.spec import ModelSpec, PlatformError
from ml_platform.spec.compute import refuse_compute
from ml_platform.training.checkpoints import kept_in


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where workers are started and keep what they have.

    checkpoints: a folder that outlives this process; None: one that does not, so that only its workers may be killed.
    ray_address: of the Ray cluster's head (host:port), on one of whose machines this process runs.
    """

    checkpoints: Path | None = None
    ray_address: str | None = None

    @property
    def cluster(self) -> str:
        """Its address, where ``refuse_site`` found one."""
        assert self.ray_address, "looked for before"
        return self.ray_address

    @contextmanager
    def folder_of(self, name: str) -> Iterator[Path]:
        """A folder for the model's checkpoints, for one training at a time; removed when that succeeds.

        Raises:
            StateError: another process trains the model.
        """
        with TemporaryDirectory() as draft, kept_in(self.checkpoints or Path(draft), name) as folder:
            yield folder


def refuse_site(spec: ModelSpec, site: Site) -> None:
    """Look whether the model can be trained as it is declared, here, before any work is done.

    Raises:
        DeclarationError: what is declared cannot be done anywhere.
        PlatformError: Ray is not installed here, or nobody says where the cluster is.
    """
    refuse_compute(spec.name, spec.estimator, spec.compute, spec.workers)
    if spec.compute != "ray":
        return
    if find_spec("ray") is None:
        raise PlatformError(
            f"model {spec.name} is declared with compute='ray', but ray is not installed here; "
            f"`pip install 'ml-platform[ray]'`, or declare it without"
        )
    if not site.ray_address:
        raise PlatformError(
            f"model {spec.name} is declared with compute='ray', but no cluster is named; set ML_PLATFORM_RAY_ADDRESS "
            f"to the address of its head (host:6379), on a machine that `ray start` made part of it"
        )
