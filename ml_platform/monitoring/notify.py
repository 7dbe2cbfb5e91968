"""Sends what waits in the outbox, and notes what was taken. Safe to call at any time, as often as wanted.

For installations without Prometheus; where Alertmanager tells people, leave the channels unset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_platform.monitoring.messages import Message, as_mail, as_slack
from ml_platform.spec import NotDelivered
from ml_platform.spec.alerts import Alert
from ml_platform.stores.channels import Channels
from ml_platform.stores.outbox import Due, Outbox
from ml_platform.stores.pages import Pages


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a look at the outbox came to. problems: a sentence for each channel that took nothing."""

    taken: int = 0
    waiting: int = 0
    problems: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """For people and logs."""
        trouble = f": {'; '.join(self.problems)}" if self.problems else ""
        return f"{self.taken} messages were taken, {self.waiting} wait{trouble}"


def send_due(outbox: Outbox, channels: Channels, pages: Pages, wall: float) -> Told:
    """Send what waits. A channel that does not take one message is left alone until its time comes again.

    wall: seconds since 1970; waiting goes by the world's time, also where the platform's is replayed.
    """
    taken, problems = 0, dict[str, str]()
    with outbox.sending() as mine:
        for due in outbox.due(wall) if mine else []:
            if due.channel in problems or due.channel not in channels.names:
                continue
            try:
                remark = _send(channels, due, pages, wall)
            except NotDelivered as error:
                problems[due.channel] = str(error)
                outbox.put_off(due, wall, str(error), error.after)
            else:
                outbox.taken(due, wall, remark)
                taken += 1
    waiting = sum(kept.taken is None for kept in outbox.messages())
    return Told(taken=taken, waiting=waiting, problems=tuple(problems.values()))


def send_until_nothing_is_due(outbox: Outbox, channels: Channels, pages: Pages, wall: float) -> Told:
    """As ``send_due``, and the ends that become due with their beginnings."""
    found: Sequence[Told] = [send_due(outbox, channels, pages, wall)]
    while found[-1].taken:
        found = [*found, send_due(outbox, channels, pages, wall)]
    problems = tuple(dict.fromkeys(problem for one in found for problem in one.problems))
    return Told(taken=sum(one.taken for one in found), waiting=found[-1].waiting, problems=problems)


def send_now(channels: Channels, channel: str, alert: Alert, pages: Pages, wall: float) -> str:
    """Send one alert's beginning past the outbox; returns for whom it was not taken, if for some.

    Raises:
        NotDelivered: nobody took it.
    """
    return _send(channels, Due(number=0, alert=alert, part="opened", channel=channel, tries=0), pages, wall)


def _send(channels: Channels, due: Due, pages: Pages, wall: float) -> str:
    message = Message(alert=due.alert, part=due.part, link=pages.dagster_asset(due.alert.asset))
    if due.channel == "webhook":
        channels.post(as_slack(message), message.key)
        return ""
    refused = channels.mail(as_mail(message, channels.sender, channels.receivers, wall))
    return f"not taken for {', '.join(refused)}" if refused else ""
