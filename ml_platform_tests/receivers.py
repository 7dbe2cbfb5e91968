"""Who takes messages in tests: a webhook and a mail server on loopback, as real as the sender can tell."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook:
    """Keeps every body that was posted and when each arrived; answers with the status, after the seconds, told last."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.arrived: list[float] = []
        self.status, self.headers, self.seconds = 200, dict[str, str](), 0.0
        self.refused = 0
        mine = self

        class Takes(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                mine.arrived.append(time.monotonic())
                time.sleep(mine.seconds)
                if mine.status == 200:
                    mine.bodies.append(body)
                    mine.keys.append(self.headers.get("X-Message-Key", ""))
                else:
                    mine.refused += 1
                self.send_response(mine.status)
                for name, value in mine.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"ok" if mine.status == 200 else b"not now")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Takes)
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/T0/B0/secret"

    @property
    def titles(self) -> Counter[str]:
        """How often each title was posted."""
        return Counter(body["attachments"][0]["title"] for body in self.bodies)

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class MailServer:
    """Speaks as much SMTP as clients need that send plain mail; keeps what it took.

    ``refuses``: answers 451 to every message. ``unknown``: receivers that it answers 550.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.receivers: list[list[str]] = []
        self.refuses, self.unknown = False, set[str]()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()

    @property
    def subjects(self) -> Counter[str]:
        """How often each subject was taken."""
        return Counter(str(mail["Subject"]) for mail in self.mails)

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._session, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())

        say("220 localhost")
        receivers: list[str] = []
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb == "RCPT":
                address = line.partition("<")[2].partition(">")[0]
                receivers += [] if address in self.unknown else [address]
                say("550 nobody of that name" if address in self.unknown else "250 ok")
            elif verb == "DATA" and self.refuses:
                say("451 try again later")
            elif verb == "DATA":
                say("354 end with a dot")
                mail = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(_parsed(mail[:-5].replace(b"\r\n..", b"\r\n.")))
                self.receivers.append(receivers)
                receivers = []
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                break
            else:
                say("250 localhost" if verb in ("EHLO", "HELO", "MAIL", "RSET", "NOOP") else "502 what?")
        await writer.drain()
        writer.close()


def text_of(mail: EmailMessage) -> str:
    """The plain text, as people read it."""
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def _parsed(content: bytes) -> EmailMessage:
    mail = message_from_bytes(content, policy=default)
    assert isinstance(mail, EmailMessage)
    return mail


@contextmanager
def receivers() -> Iterator[tuple[Webhook, MailServer]]:
    """Both, as long as they are wanted."""
    webhook, mail = Webhook(), MailServer()
    webhook.start()
    mail.start()
    try:
        yield webhook, mail
    finally:
        webhook.stop()
        mail.stop()
