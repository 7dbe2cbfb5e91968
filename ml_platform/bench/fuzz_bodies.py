"""Requests that are wrong in one way or several, made from right ones by a seed.

They are bytes as they go onto the wire, so that they can be wrong below HTTP's own rules, too.
"""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

_ODD: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**40, 0.5, -0.0, 1e-320, 1e308,
    math.nan, math.inf, -math.inf, "", " ", "\x00", "a", "7", "null", "NaN", "a" * 256, "a" * 257, "a" * 20_000, "é",
    "\ud800", "\U0001f6eb", "'; DROP TABLE tiles; --", "../../etc/passwd", [], {}, [[]], [None], {"": None}, {"a": [1]},
    "2013-04-01", "2013-04-01T12:00:00", "2013-04-01T12:00:00Z", "2013-13-41T99:99:99Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "2013-04-01T12:00:00.123456789Z", "-2013-04-01T12:00:00Z", "20130401T120000+0000",
    "2013-W14-1T12:00:00Z", "2013-04-01T24:00:00Z", "2013-04-01T12:00:00+99:99", "1364817600",
)  # fmt: skip
_KINDS: Sequence[bytes] = (
    b"application/json", b"application/json; charset=utf-8", b"application/json; charset=nonsense", b"APPLICATION/JSON",
    b"text/plain", b"", b"multipart/form-data", b"multipart/form-data; boundary=x", b"application/msgpack", b";;;",
    b"application/x-www-form-urlencoded", b"application/octet-stream", b"application/vnd.bentoml+pickle", b"\xff",
)  # fmt: skip
_PATHS: Sequence[bytes] = (
    b"/predict", b"/predict/", b"//predict", b"/predict?rows=1", b"/predict%00", b"/%70redict", b"/../predict",
    b"/label", b"/ingest", b"/model", b"/livez", b"/readyz", b"/metrics", b"/docs.json", b"/nothing", b"/", b"*",
    b"/\xc3\xa9", b"http://other/predict", b"/predict#x",
)  # fmt: skip
_METHODS: Sequence[bytes] = (
    b"GET", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"TRACE", b"CONNECT", b"BREW", b"post",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A request's bytes, and what is the matter with it.

    whole: it is a request with all of its body, so that there has to be an answer.
    """

    what: str
    sent: bytes
    whole: bool = True


def request(
    path: bytes, body: bytes, *, method: bytes = b"POST", kind: bytes | None = b"application/json", more: bytes = b""
) -> bytes:
    """A request over a connection that is closed after it."""
    typed = b"" if kind is None else b"content-type: %b\r\n" % kind
    head = b"%b %b HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\n%b%b" % (method, path, typed, more)
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


class Fuzz:
    """Makes wrong requests of right bodies: ``bodies`` by path."""

    def __init__(self, bodies: Mapping[str, Any], seed: int) -> None:
        """``bodies``: one that the service accepts, for each endpoint."""
        self.bodies, self.chance = bodies, random.Random(seed)
        self._ways: Sequence[Callable[[str, Any], Wrong]] = (
            *[self._changed] * 8, self._cut, self._flipped, self._deep, self._huge, self._numbers, self._twice,
            self._typed, self._moved, self._chunked, self._lied, self._empty, self._headed, self._garbage,
        )  # fmt: skip

    def wrong(self) -> Wrong:
        """The next one."""
        path = self.chance.choice(sorted(self.bodies))
        return self.chance.choice(self._ways)(path, json.loads(json.dumps(self.bodies[path])))

    def _changed(self, path: str, body: Any) -> Wrong:
        """One to three places of the body changed: another value, no field, a field more, a list grown."""
        what = []
        for _ in range(self.chance.randint(1, 3)):
            places = list(_places(body))
            if not places:
                break
            holder, key = self.chance.choice(places)
            way = self.chance.choice(["value", "value", "value", "gone", "more", "again"])
            odd = deepcopy(self.chance.choice(_ODD))  # it may be changed in its turn
            if way == "value":
                holder[key] = odd
            elif way == "gone":
                del holder[key]
            elif way == "again" and isinstance(holder, list):
                holder.extend([holder[key]] * self.chance.choice([1, 50, 3000]))
            elif isinstance(holder, dict):
                holder[str(odd)[:50]] = odd
            what.append(f"{key}: {way} {str(odd)[:20]!r}")
        return self._as_json(path, body, "; ".join(what))

    def _as_json(self, path: str, body: Any, what: str) -> Wrong:
        text = json.dumps(body, ensure_ascii=self.chance.random() < 0.5)
        return Wrong(what=f"{path}: {what}", sent=request(path.encode(), text.encode("utf-8", "surrogatepass")))

    def _cut(self, path: str, body: Any) -> Wrong:
        text = json.dumps(body).encode()
        end = self.chance.randrange(len(text))
        return Wrong(what=f"{path}: cut at {end}", sent=request(path.encode(), text[:end]))

    def _flipped(self, path: str, body: Any) -> Wrong:
        text = bytearray(json.dumps(body).encode())
        for _ in range(self.chance.randint(1, 4)):
            text[self.chance.randrange(len(text))] = self.chance.randrange(256)
        return Wrong(what=f"{path}: bytes changed", sent=request(path.encode(), bytes(text)))

    def _deep(self, path: str, body: Any) -> Wrong:
        depth, pair = self.chance.choice([50, 500, 5_000, 30_000]), self.chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
        whole = pair[0] * depth + b"1" + pair[1] * depth
        name = next(iter(body), "rows").encode()
        return Wrong(what=f"{path}: {depth} deep", sent=request(path.encode(), b'{"%b": %b}' % (name, whole)))

    def _huge(self, path: str, body: Any) -> Wrong:
        size = self.chance.choice([10_000, 66_000, 5_000_000])
        sent = request(path.encode(), b'{"rows": "%b"}' % (b"a" * size))
        # Of the largest the answer comes before the body was sent, and may be lost with the connection.
        return Wrong(what=f"{path}: {size} bytes", sent=sent, whole=size < 1_000_000)

    def _numbers(self, path: str, body: Any) -> Wrong:
        """A number that JSON allows and nobody can hold, or that it does not allow."""
        number = self.chance.choice(
            ["9" * 400, "9" * 5000, "1e999", "-1e999", "1E400", "0" * 50 + "1", "0x10", "1_000", "-", "+1", ".5", "1.",
             "NaN", "-Infinity", "1e-999", "0." + "3" * 3000]
        )  # fmt: skip
        places = [place for place in _places(body) if not isinstance(place[0][place[1]], dict | list)] or [
            *_places(body)
        ]
        if places:
            holder, key = self.chance.choice(places)
            holder[key] = "@number@"
        text = json.dumps(body).replace('"@number@"', number)
        return Wrong(what=f"{path}: number {number[:20]}", sent=request(path.encode(), text.encode()))

    def _twice(self, path: str, body: Any) -> Wrong:
        """A name twice in one object."""
        text = json.dumps(body)
        odd = json.dumps(self.chance.choice(_ODD))
        name = next(iter(body), "rows")
        return Wrong(
            what=f"{path}: {name} twice", sent=request(path.encode(), f'{{"{name}": {odd}, {text[1:]}'.encode())
        )

    def _typed(self, path: str, body: Any) -> Wrong:
        kind = self.chance.choice([None, *_KINDS])
        return Wrong(what=f"{path}: as {kind!r}", sent=request(path.encode(), json.dumps(body).encode(), kind=kind))

    def _moved(self, path: str, body: Any) -> Wrong:
        where, method = self.chance.choice(_PATHS), self.chance.choice([b"POST", b"POST", *_METHODS])
        sent = request(where, json.dumps(body).encode(), method=method)
        return Wrong(what=f"{method.decode()} {where!r}", sent=sent)

    def _chunked(self, path: str, body: Any) -> Wrong:
        text = json.dumps(body).encode()
        head = (
            b"POST %b HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\ncontent-type: application/json\r\n" % path.encode()
        )
        both = b"content-length: %d\r\n" % len(text) if self.chance.random() < 0.3 else b""
        size = self.chance.choice([b"%x" % len(text), b"zz", b"-1", b"ffffffffffffffff"])
        end = b"\r\n0\r\n\r\n"
        sent = b"%b%btransfer-encoding: chunked\r\n\r\n%b\r\n%b%b" % (head, both, size, text, end)
        return Wrong(what=f"{path}: chunked {size!r}{' and a length' if both else ''}", sent=sent, whole=False)

    def _lied(self, path: str, body: Any) -> Wrong:
        """A length that is none, or not that of the body."""
        text = json.dumps(body).encode()
        length = self.chance.choice(
            [b"0", b"1", b"-5", b"abc", b"", b"+7", b"1e3", b"9" * 30, b"7, 7", b" 12 ", b"0x10",
             b"%d" % (len(text) - 1)]
        )  # fmt: skip
        head = (
            b"POST %b HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\ncontent-type: application/json\r\n" % path.encode()
        )
        sent = b"%bcontent-length: %b\r\n\r\n%b" % (head, length, text)
        return Wrong(what=f"{path}: length {length!r}", sent=sent, whole=False)

    def _empty(self, path: str, body: Any) -> Wrong:
        text = self.chance.choice(
            [b"", b" ", b"\x00", b"null", b"[]", b"{}", b'""', b"0", b"\xef\xbb\xbf{}", b"\xff\xfe"]
        )
        return Wrong(what=f"{path}: body {text!r}", sent=request(path.encode(), text))

    def _headed(self, path: str, body: Any) -> Wrong:
        odd = self.chance.choice(
            [b"x-request-id: \xff\xfe", b"x-request-id: " + b"a" * 5000, b"x-request-id:", b"accept: nothing/at-all",
             b"accept-encoding: \x01", b"content-encoding: gzip", b"content-encoding: x", b"expect: 100-continue",
             b"upgrade: websocket\r\nconnection: upgrade", b"cookie: " + b"c" * 9000, b"authorization: Basic !!!",
             b"traceparent: 00-zz-zz-zz", b"x-bentoml-batch: 7", b"Bentoml-Container: a", b"range: bytes=0-1",
             b"origin: null", b"forwarded: for=\"", b"args: {}", b"Payload-Container: PandasDataFrameContainer"]
        )  # fmt: skip
        sent = request(path.encode(), json.dumps(body).encode(), more=odd + b"\r\n")
        return Wrong(what=f"{path}: header {odd[:40]!r}", sent=sent)

    def _garbage(self, path: str, body: Any) -> Wrong:
        sent = self.chance.choice(
            [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"POST /predict\r\n\r\n", b"\r\n\r\n\r\n",
             b"POST /predict HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
             self.chance.randbytes(300) + b"\r\n\r\n", b"POST /predict HTTP/1.0\r\n\r\n{}",
             b"POST /predict HTTP/1.1\r\nhost fuzz\r\n\r\n", b"GET /livez HTTP/1.0\r\n\r\n"]
        )  # fmt: skip
        return Wrong(what=f"no request: {sent[:30]!r}", sent=sent, whole=False)


def _places(body: Any) -> Sequence[tuple[Any, Any]]:
    """Every place of a value in nested objects and lists: what holds it, and its name or number."""
    if isinstance(body, dict):
        return [(body, key) for key in body] + [place for value in body.values() for place in _places(value)]
    if isinstance(body, list):
        return [(body, key) for key in range(len(body))] + [place for value in body for place in _places(value)]
    return []
