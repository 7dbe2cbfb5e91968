"""`ml-platform serve`: a prediction service in the foreground."""

from dataclasses import replace

import click

from ml_platform.resources.profiles import Profile
from ml_platform.stores.home import Home


@click.command()
@click.argument("service", required=False)
@click.option("--port", default=3000, show_default=True, help="0: any free port.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes that answer.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond loopback it wants keys, or --open.")
@click.option("--open", "is_open", is_flag=True, help="Ask for no keys: something in front asks who comes.")
@click.option("--referee-beside", is_flag=True, help="`ml-platform referee` runs in a container beside this one.")
def serve(service: str | None, port: int, workers: int, host: str, is_open: bool, referee_beside: bool) -> None:
    """Start a prediction service alone, on the state as it stands.

    A worker that ends is started again. SIGHUP replaces the workers one after the other, without a failed request.
    """
    from ml_platform.resources.projects import load_project
    from ml_platform.serving.process import serve as serve_in_foreground

    profile = Profile.from_environment()
    Home(profile.home).prepare(profile.project)
    name = service or next(iter(load_project(profile.project).services))
    profile = replace(profile, keys="open") if is_open else profile
    serve_in_foreground(
        profile, name, port, host=host, referee_beside=referee_beside, workers=workers, announce=click.echo
    )
