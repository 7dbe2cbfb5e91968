"""`ml-platform keys`: who may ask a service; each change is a line in the ledger, without anything of the key."""

from datetime import datetime
from typing import Any

import click

from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.access import key_file
from ml_platform.spec import UnknownName
from ml_platform.stores.api_keys import ROLES, KeyFile
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import KEY


class _Desk:
    """What the commands work with: the keys of one service, and the ledger."""

    def __init__(self, service: str) -> None:
        self.profile = Profile.from_environment()
        Home(self.profile.home).prepare(self.profile.project)
        services = load_project(self.profile.project).services
        if service not in services:
            raise UnknownName("service", service, services)
        self.service = service
        self.file: KeyFile = key_file(self.profile, service)
        self.ledger = Ledger(self.profile.ledger_path)
        self.now: datetime = Clock(self.profile.clock_path).now()

    def note(self, action: str, name: str, roles: tuple[str, ...], by: str) -> Entry:
        """A line; the same may be done to the same name again, so they are numbered."""
        said = len(self.ledger.entries(KEY, self.service))
        body = {"action": action, "name": name, "roles": list(roles), "by": by}
        return self.ledger.write(KEY, self.service, f"{action} {name} behind {said}", self.now, body)


@click.group()
def keys() -> None:
    """Who may ask a service: keys with roles. With the first one the service asks for keys, beyond health."""


@keys.command()
@click.argument("service")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice(ROLES), help="One or more.")
@click.option("--name", required=True, help="Whose it is; the log names it.")
@click.option("--by", default="", help="Who adds it.")
def add(service: str, roles: tuple[str, ...], name: str, by: str) -> None:
    """Make a key for SERVICE and print it, this once. Running workers know it within two seconds."""
    desk = _Desk(service)
    made = desk.file.add(name, roles, desk.now, lambda: desk.note("added", name, roles, by))
    click.echo(made)
    click.echo(f"the key of {name} for {', '.join(roles)}; it is not shown again", err=True)


@keys.command("list")
@click.argument("service")
def show(service: str) -> None:
    """Whose keys SERVICE knows."""
    found = _Desk(service).file.read()
    if found is None:
        click.echo(f"service {service} has no keys: it answers its own machine alone, whoever asks there")
    for key in found or ():
        click.echo(f"{key.name}: {', '.join(key.roles)}; added {key.added[:16].replace('T', ' ')} UTC")
    if found == []:
        click.echo(f"all keys of service {service} were revoked: nobody is let in")


@keys.command()
@click.argument("service")
@click.argument("name")
@click.option("--by", default="", help="Who revokes it.")
def revoke(service: str, name: str, by: str) -> None:
    """Let SERVICE know the key of NAME no more; running workers refuse it within two seconds."""
    desk = _Desk(service)
    gone = desk.file.revoke(name)
    lines = [line for line in desk.ledger.entries(KEY, service) if line.body["name"] == name]
    if gone is None and (not lines or lines[-1].body["action"] == "revoked"):
        raise UnknownName(f"key of service {service}", name, [key.name for key in desk.file.read() or ()])
    line = desk.note("revoked", name, gone.roles if gone else tuple(lines[-1].body["roles"]), by)
    click.echo(f"line {line.number}: the key of {name} for service {service} is revoked")


COMMANDS: tuple[Any, ...] = (keys,)
