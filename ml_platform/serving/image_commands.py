"""`ml-platform image`: the context of an image that serves exactly one version."""

from pathlib import Path

import click

from ml_platform.resources.profiles import Profile


def _lock() -> Path:
    """Beside the package, where it runs from its repository; else where the command is given."""
    from ml_platform.serving.image_pins import LOCK

    beside = Path(__file__).parents[2] / LOCK
    return beside if beside.is_file() else Path(LOCK)


@click.command()
@click.argument("name", metavar="SERVICE|MODEL")
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("--to", "target", required=True, type=click.Path(path_type=Path, file_okay=False), help="A new folder.")
@click.option("--lock", type=click.Path(path_type=Path, dir_okay=False), help="The platform's requirements.lock.")
@click.option("--override", is_flag=True, help="Also a version that nobody let pass.")
def image(name: str, version: int | None, target: Path, lock: Path | None, override: bool) -> None:
    """Write an image's context for VERSION (without: the champion) of a service: files, code, pins, Dockerfile.

    `docker build` or `bentoml build` make an image of the folder, which needs no registry when it runs.
    """
    from ml_platform.resources.projects import load_project
    from ml_platform.serving.image import Wanted, make_image, service_of
    from ml_platform.stores.clock import Clock
    from ml_platform.stores.home import Home

    profile = Profile.from_environment()
    Home(profile.home).prepare(profile.project)
    project, now = load_project(profile.project), Clock(profile.clock_path).now()
    wanted = Wanted(service=service_of(project, name), version=version, override=override)
    made = make_image(profile, project, wanted, target, lock or _lock(), now)
    click.echo(
        f"version {made.version} of {made.model} for service {made.service} is in {target}, with {len(made.digests)} "
        f"files of the model; `docker build {target}` makes an image of it"
    )
