"""An alert in words: as a body in Slack's format and as a mail."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formataddr, formatdate
from hashlib import sha256
from typing import Any, Literal

from ml_platform.spec.alerts import Alert, Part

_COLOURS = {"page": "danger", "warn": "warning", "ended": "good"}  # by Slack's own names
_DOMAIN = "ml-platform.invalid"  # of message ids; no mail is ever sent there (RFC 2606)
Channel = Literal["webhook", "mail"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """What one alert's beginning or end says, on whichever channel.

    link: the guilty asset's page. key: the same for the same message, so that whoever gets it twice can tell.
    """

    alert: Alert
    part: Part
    link: str

    @property
    def key(self) -> str:
        """Of the alert and its part alone."""
        return sha256(f"{self.alert.id}\n{self.part}".encode()).hexdigest()[:32]

    @property
    def title(self) -> str:
        """One line."""
        word = "ended" if self.part == "ended" else self.alert.severity
        return f"[{word}] {self.alert.name}: {self.alert.place}"

    @property
    def text(self) -> str:
        """What it is and since when; of an end, how long it lasted."""
        if self.part == "opened":
            return self.alert.sentence
        ended = f", until {self.alert.ended}" if self.alert.ended else ""
        return f"What was told of {self.alert.place} is over: since {self.alert.began}{ended}."


def as_slack(message: Message) -> dict[str, Any]:
    """The body of an incoming webhook: one attachment, as Alertmanager sends them, too."""
    alert = message.alert
    colour = _COLOURS["ended" if message.part == "ended" else alert.severity]
    fields = {"asset": alert.asset, "since": str(alert.began), "severity": alert.severity}
    return {
        "text": _escaped(message.title),
        "attachments": [
            {
                "color": colour,
                "title": _escaped(message.title),
                "title_link": message.link,
                "text": _escaped(message.text),
                "fallback": f"{_escaped(message.title)}: {message.link}",
                "fields": [{"title": name, "value": _escaped(text), "short": True} for name, text in fields.items()],
                "footer": message.key,
            }
        ],
    }


def as_mail(message: Message, sender: str, receivers: tuple[str, ...], wall: float) -> EmailMessage:
    """A plain text, sent at ``wall`` (seconds since 1970).

    The end answers the beginning, so that mail programs show them as one conversation.
    """
    mail = EmailMessage()
    mail["Subject"] = _one_line(message.title)
    mail["From"] = sender if "<" in sender else formataddr(("ML platform", sender))
    mail["To"] = ", ".join(receivers)
    mail["Date"] = formatdate(wall)
    mail["Message-ID"] = f"<{message.key}@{_DOMAIN}>"
    if message.part == "ended":
        began = Message(alert=message.alert, part="opened", link=message.link)
        mail["In-Reply-To"] = mail["References"] = f"<{began.key}@{_DOMAIN}>"
    mail["Auto-Submitted"] = "auto-generated"  # no out-of-office answers (RFC 3834)
    mail.set_content(f"{message.text}\n\n{message.link}\n\nseverity {message.alert.severity}, id {message.alert.id}\n")
    return mail


def labels(alert: Alert) -> Mapping[str, str]:
    """What tells an alert from others, as Prometheus' labels."""
    return {"place": alert.place, "asset": alert.asset, "severity": alert.severity, "signal": alert.signal}


def _escaped(text: str) -> str:
    """Slack reads these three signs as its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
