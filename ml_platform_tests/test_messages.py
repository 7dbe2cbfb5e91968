"""What is said, on which ways, to real receivers; and what is said when they do not take it."""

import json
from datetime import date
from pathlib import Path

import pytest

from ml_platform.monitoring.messages import Message, as_mail, as_slack
from ml_platform.monitoring.notify import send_due, send_until_nothing_is_due
from ml_platform.resources.profiles import Profile
from ml_platform.spec import DeclarationError, HomeDamaged, NotDelivered
from ml_platform.spec.alerts import Alert, of_incident
from ml_platform.stores.channels import Channels
from ml_platform.stores.outbox import FIRST_WAIT, LONGEST_WAIT, Outbox
from ml_platform.stores.pages import Pages
from ml_platform_tests.alert_world import incident, ports
from ml_platform_tests.receivers import MailServer, Webhook, receivers, text_of

DAY = date(2024, 3, 1)
PAGES = Pages(mlflow="http://m", dagster="http://d")
ALERT = of_incident(incident("raw/weather.temp", DAY))
TO = ("a@example.com", "b@example.com")


def channels_to(webhook: Webhook, mail: MailServer) -> Channels:
    return Channels(webhook=webhook.url, smtp=f"smtp://127.0.0.1:{mail.port}", sender="p@example.com", receivers=TO)


def outbox_with(folder: Path, *alerts: Alert, channels: tuple[str, ...] = ("webhook", "mail")) -> Outbox:
    outbox = Outbox(folder / "alerts.db")
    outbox.note(alerts, {}, channels, DAY)
    return outbox


def test_a_beginning_and_its_end_are_said_once_on_each_channel(tmp_path: Path) -> None:
    with receivers() as (webhook, mail):
        outbox, channels = outbox_with(tmp_path, ALERT), channels_to(webhook, mail)
        assert send_until_nothing_is_due(outbox, channels, PAGES, 0).taken == 2
        outbox.note([ALERT], {}, channels.names, DAY)
        outbox.note([], {ALERT.id: date(2024, 3, 4)}, channels.names, DAY)
        outbox.note([], {ALERT.id: date(2024, 3, 5)}, channels.names, DAY)
        assert send_until_nothing_is_due(outbox, channels, PAGES, 1).taken == 2
        assert send_until_nothing_is_due(outbox, channels, PAGES, 2).taken == 0
        first, last = (body["attachments"][0] for body in webhook.bodies)
        assert first["title"] == "[page] contract: raw/weather.temp"
        assert first["title_link"] == "http://d/assets/raw/weather"
        assert "&lt;wrong&gt; &amp; " in first["text"]
        assert (first["color"], last["color"]) == ("danger", "good")
        assert last["text"] == "What was told of raw/weather.temp is over: since 2024-03-01, until 2024-03-04."
        begun, ended = mail.mails
        assert text_of(begun).startswith(ALERT.sentence)
        assert mail.receivers == [list(TO), list(TO)]
        assert ended["In-Reply-To"] == begun["Message-ID"]
        assert len({webhook.keys[0], webhook.keys[1], begun["Message-ID"], ended["Message-ID"]}) == 4
        assert [kept.taken for kept in outbox.messages()] == [0, 0, 1, 1]


def test_the_same_message_has_the_same_key_and_others_have_others() -> None:
    def key(alert: Alert, part: str) -> str:
        return Message(alert=alert, part=part, link="").key  # type: ignore[arg-type]

    other = of_incident(incident("raw/weather.dewp", DAY))
    assert key(ALERT, "opened") == key(ALERT, "opened")
    assert len({key(ALERT, "opened"), key(ALERT, "ended"), key(other, "opened")}) == 3


def test_a_mail_s_headers_are_one_line_each() -> None:
    alert = Alert(id="x", name="odd\r\nBcc: all@example.com", place="p", severity="warn", sentence="s", began=DAY)
    mail = as_mail(Message(alert=alert, part="opened", link="l"), "p@example.com", TO, 0)
    assert mail["Subject"] == "[warn] odd Bcc: all@example.com: p"
    assert mail["Bcc"] is None
    assert mail["Date"] == "Thu, 01 Jan 1970 00:00:00 -0000"
    assert json.dumps(as_slack(Message(alert=alert, part="opened", link="l")))


def test_words_leave_the_outbox_once_nobody_needs_them(tmp_path: Path) -> None:
    with receivers() as (webhook, mail):
        outbox, channels = outbox_with(tmp_path, ALERT), channels_to(webhook, mail)
        mail.refuses = True
        send_due(outbox, channels, PAGES, 0)
        assert b"look at its check" in (tmp_path / "alerts.db").read_bytes()
        mail.refuses = False
        send_due(outbox, channels, PAGES, FIRST_WAIT)
        assert b"look at its check" not in (tmp_path / "alerts.db").read_bytes()
        assert outbox.noted()[ALERT.id].place == "raw/weather.temp"


def test_an_end_waits_for_its_beginning_and_one_channel_for_no_other(tmp_path: Path) -> None:
    with receivers() as (webhook, mail):
        outbox, channels = outbox_with(tmp_path, ALERT), channels_to(webhook, mail)
        outbox.note([], {ALERT.id: DAY}, channels.names, DAY)
        webhook.status = 500
        found = send_until_nothing_is_due(outbox, channels, PAGES, 0)
        assert (found.taken, found.waiting) == (2, 2)
        assert found.problems == ("the webhook answered 500: not now",)
        assert webhook.refused == 1
        assert [str(one["Subject"]).split()[0] for one in mail.mails] == ["[page]", "[ended]"]
        webhook.status = 200
        assert send_until_nothing_is_due(outbox, channels, PAGES, FIRST_WAIT - 1).taken == 0
        assert send_until_nothing_is_due(outbox, channels, PAGES, FIRST_WAIT).taken == 2
        assert list(webhook.titles) == ["[page] contract: raw/weather.temp", "[ended] contract: raw/weather.temp"]


def test_waiting_doubles_up_to_an_hour_and_as_long_as_was_asked(tmp_path: Path) -> None:
    with receivers() as (webhook, mail):
        outbox, channels = outbox_with(tmp_path, ALERT, channels=("webhook",)), channels_to(webhook, mail)
        webhook.status, wall, waits = 500, 0.0, []
        for _ in range(10):
            assert send_due(outbox, channels, PAGES, wall).problems
            (kept,) = outbox.messages()
            waits.append(kept.not_before - wall)
            wall = kept.not_before
        assert waits == [min(FIRST_WAIT * 2**n, LONGEST_WAIT) for n in range(10)]
        webhook.status, webhook.headers = 429, {"Retry-After": "9000"}
        send_due(outbox, channels, PAGES, wall)
        assert outbox.messages()[0].not_before == wall + 9000
        assert outbox.messages()[0].tries == 11


def test_what_cannot_be_reached_is_told_without_the_secret(tmp_path: Path) -> None:
    (closed,) = ports(1)
    channels = Channels(
        webhook=f"http://127.0.0.1:{closed}/services/secret",
        smtp=f"smtp://user:secret@127.0.0.1:{closed}",
        sender="p@example.com",
        receivers=TO,
    )
    found = send_due(outbox_with(tmp_path, ALERT), channels, PAGES, 0)
    assert (found.taken, found.waiting, len(found.problems)) == (0, 2, 2)
    assert "secret" not in found.sentence + repr(channels)


def test_redirects_are_not_followed_and_receivers_that_are_unknown_are_told(tmp_path: Path) -> None:
    with receivers() as (webhook, mail):
        channels = channels_to(webhook, mail)
        webhook.status, webhook.headers = 302, {"Location": webhook.url}
        with pytest.raises(NotDelivered, match="answered 302"):
            channels.post({}, "key")
        letter = as_mail(Message(alert=ALERT, part="opened", link="l"), "p@example.com", TO, 0)
        mail.unknown = {"b@example.com"}
        assert channels.mail(letter) == ("b@example.com",)
        mail.unknown = set(TO)
        with pytest.raises(NotDelivered, match="no receiver was accepted"):
            channels.mail(letter)
        assert mail.receivers == [["a@example.com"]]


def test_while_one_sends_another_does_not(tmp_path: Path) -> None:
    with receivers() as (webhook, mail):
        outbox, channels = outbox_with(tmp_path, ALERT), channels_to(webhook, mail)
        with Outbox(outbox.path).sending() as mine:
            assert mine
            assert send_due(outbox, channels, PAGES, 0).taken == 0
        assert send_due(outbox, channels, PAGES, 0).taken == 2


def test_a_damaged_outbox_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "alerts.db").write_bytes(b"no database" * 100)
    with pytest.raises(HomeDamaged, match="set it aside"):
        Outbox(tmp_path / "alerts.db").noted()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"WEBHOOK": "hooks.example/secret"}, "no http"),
        ({"SMTP": "mail.example:25/secret", "FROM": "a@b", "TO": "c@d"}, "must be smtp"),
        ({"SMTP": "smtp://user:secret@mail.example:port", "FROM": "a@b", "TO": "c@d"}, "must be smtp"),
        ({"SMTP": "smtp://user:secret@mail.example", "FROM": "a@b"}, "needs a sender and receivers"),
        ({"SMTP": "smtp://user:secret@mail.example", "TO": "a@b"}, "needs a sender and receivers"),
    ],
)
def test_a_wrong_setting_is_refused_without_telling_it(said: dict[str, str], why: str) -> None:
    with pytest.raises(DeclarationError, match=why) as caught:
        Profile.from_environment({f"ML_PLATFORM_ALERTS_{name}": value for name, value in said.items()})
    assert "secret" not in str(caught.value)


def test_settings_come_from_the_environment_alone() -> None:
    assert Profile.from_environment({}).channels.names == ()
    said = {
        "ML_PLATFORM_ALERTS_WEBHOOK": "https://hooks.example/x",
        "ML_PLATFORM_ALERTS_SMTP": "smtps://u:p%40ss@mail.example",
        "ML_PLATFORM_ALERTS_FROM": "p@example.com",
        "ML_PLATFORM_ALERTS_TO": "a@example.com, b@example.com,",
    }
    channels = Profile.from_environment(said).channels
    assert (channels.names, channels.receivers) == (("webhook", "mail"), TO)
    assert "p%40ss" not in repr(Profile.from_environment(said))
