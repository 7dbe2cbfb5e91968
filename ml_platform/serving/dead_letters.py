"""The command about events that could not be applied: `ml-platform dead-letters`."""

from collections import Counter
from itertools import islice

import click

from ml_platform.resources.profiles import Profile
from ml_platform.stores.event_stream import DeadLetter
from ml_platform.stores.home import Home

_SHOWN = 160  # characters of a row


@click.command("dead-letters")
@click.option("--table", help="Only rows that were sent for this table.")
@click.option("--reason", help="Only those whose reason contains this text.")
@click.option("--most", default=20, show_default=True, type=click.IntRange(0), help="Rows shown, the newest first.")
@click.option("--send-again", is_flag=True, help="Put all of them (not just those shown) back onto the stream.")
def dead_letters(table: str | None, reason: str | None, most: int, send_again: bool) -> None:
    """List the events that `ml-platform consume` set aside, each with its reason (production profile).

    Once the reason is mended (a rule, a column, a missing table of reference), --send-again has them applied like new
    ones. What still cannot be applied is set aside again; what was applied already changes nothing.
    """
    from ml_platform.resources.projects import load_project
    from ml_platform.serving.consumer import event_stream

    profile = Profile.from_environment()
    Home(profile.home).prepare(profile.project)
    stream = event_stream(profile, load_project(profile.project).name)

    def chosen(letter: DeadLetter) -> bool:
        return (table is None or letter.table == table) and (reason is None or reason in letter.reason)

    found = [letter for letter in stream.dead_letters() if chosen(letter)]
    for letter in islice(found, most):
        click.echo(f"{letter.id.decode()}  {letter.table}  {letter.reason}\n    {_shown(letter.row)}")
    for (name, why), count in Counter((letter.table, letter.reason) for letter in found).most_common():
        click.echo(f"{count} x {name}: {why}")
    click.echo(f"{len(found)} dead letters in {stream.dead}")
    if send_again:
        click.echo(f"{stream.send_again(found)} sent again; `ml-platform consume` applies them")


def _shown(row: bytes) -> str:
    text = row.decode(errors="replace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
