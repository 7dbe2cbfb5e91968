"""The ways on which messages leave the machine: a webhook in Slack's format, and mail."""

import json
import smtplib
import ssl
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ml_platform.spec import DeclarationError, NotDelivered

CHANNELS = ("webhook", "mail")
_SECONDS = 10  # to connect, and for each answer; who takes longer is tried again later
_MOST_SAID = 200  # characters of a refusal's body


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Where messages go; without either none leaves.

    webhook: an address in Slack's format, a secret. smtp: ``smtps://user:password@host`` (TLS from the first byte) or
    ``smtp://...`` (STARTTLS, which is demanded of every host but this machine).
    """

    webhook: str = field(default="", repr=False)
    smtp: str = field(default="", repr=False)
    sender: str = ""
    receivers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could never be delivered.

        Raises:
            DeclarationError: an address is none, or mail lacks a sender or receivers. No secret is in the message.
        """
        if self.webhook and (
            urlsplit(self.webhook).scheme not in ("http", "https") or not urlsplit(self.webhook).netloc
        ):
            raise DeclarationError("the webhook for alerts is no http(s) address; see deploy/production.md")
        if self.smtp:
            _smtp_parts(self.smtp)
            if not (self.sender and self.receivers):
                raise DeclarationError("mail needs a sender and receivers, too; see deploy/production.md")

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are set up."""
        return tuple(name for name, address in (("webhook", self.webhook), ("mail", self.smtp)) if address)

    def post(self, body: Mapping[str, Any], key: str) -> None:
        """Post to the webhook; returns once it took the message. ``key``: the same if it is sent again.

        Raises:
            NotDelivered: it could not be reached, or refused.
        """
        headers = {"Content-Type": "application/json", "X-Message-Key": key}
        request = Request(self.webhook, json.dumps(body).encode(), headers, method="POST")
        try:
            with build_opener(_NoRedirect).open(request, timeout=_SECONDS) as answer:
                answer.read()
        except HTTPError as error:
            said = error.read(_MOST_SAID).decode(errors="replace")
            raise NotDelivered(f"the webhook answered {error.code}: {said}", after=_retry_after(error)) from None
        except (URLError, OSError, ValueError) as error:
            said = str(error.reason) if isinstance(error, URLError) else type(error).__name__  # never the address
            raise NotDelivered(f"the webhook cannot be reached: {said}") from None

    def mail(self, mail: EmailMessage) -> tuple[str, ...]:
        """Hand a mail to the server; returns the receivers that it refused, once it took it for the others.

        Raises:
            NotDelivered: it could not be reached, or refused it altogether.
        """
        secure, host, port, user, password = _smtp_parts(self.smtp)
        context = ssl.create_default_context()
        try:
            if secure:
                server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=_SECONDS, context=context)
            else:
                server = smtplib.SMTP(host, port, timeout=_SECONDS)
            with closing(server):
                if not secure and not _is_here(host):
                    server.starttls(context=context)
                if user:
                    server.login(user, password)
                refused = server.send_message(mail, self.sender, self.receivers)
                with suppress(smtplib.SMTPException, OSError):  # it is taken; how they part changes nothing
                    server.quit()
        except (smtplib.SMTPException, OSError) as error:
            raise NotDelivered(f"the mail server {host}:{port} did not take it: {_reason(error)}") from None
        return tuple(sorted(refused))


class _NoRedirect(HTTPRedirectHandler):
    """A message that is sent on by GET is lost without anybody noticing."""

    def redirect_request(self, *told: Any) -> None:
        """Let the answer be an error."""


def _retry_after(error: HTTPError) -> float | None:
    said = error.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else None


def _smtp_parts(address: str) -> tuple[bool, str, int, str, str]:
    """Whether TLS comes first, host, port, user and password (both may be empty)."""
    found = urlsplit(address)
    try:
        port = found.port
    except ValueError:
        port = -1
    if found.scheme not in ("smtp", "smtps") or not found.hostname or port == -1:
        raise DeclarationError(
            "the mail server for alerts must be smtp://user:password@host:port or smtps://...; see deploy/production.md"
        )
    secure = found.scheme == "smtps"
    user, password = unquote(found.username or ""), unquote(found.password or "")
    return secure, found.hostname, port or (465 if secure else 587), user, password


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return f"{error.smtp_code} {said}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"no receiver was accepted ({', '.join(error.recipients)})"
    return str(error) or type(error).__name__
