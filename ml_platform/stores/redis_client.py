"""A client of one Redis server that gives up soon, finds back by itself, and says in a sentence what is away."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from hashlib import sha1
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ml_platform.spec import DeclarationError, StoreUnavailable

if TYPE_CHECKING:
    import redis

Word = bytes | str | int


class RedisClient:
    """Commands and scripts, many in one round trip; safe to share between threads, opened anew in another process."""

    def __init__(self, url: str, patience: timedelta) -> None:
        """Nothing is connected to before it is used.

        url: ``redis[s]://[[user]:password@]host[:port][/database]``. patience: for connecting, and for each answer.
        """
        self.url, self.patience = url, patience
        self._made: redis.Redis | None = None

    @property
    def place(self) -> str:
        """The address without user and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def ask(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """The replies, in order, after one round trip; sent again, once, when the connection was lost before.

        Raises:
            StoreUnavailable: it cannot be reached, or refuses a command; others may have been done.
            DeclarationError: the URL is of another form.
        """
        import redis

        try:
            return self._ask(commands)
        except redis.RedisError as error:
            raise StoreUnavailable(
                f"Redis at {self.place} does not answer as it should ({type(error).__name__}: {error}); look whether "
                f"it runs and has memory left; the next call tries again"
            ) from error

    def run(self, script: str, calls: Sequence[tuple[Sequence[Word], Sequence[Word]]]) -> list[Any]:
        """The replies to a script called with each (keys, arguments); it runs whole or not at all, each time.

        Raises:
            StoreUnavailable: see ``ask``.
        """
        import redis

        sha = sha1(script.encode(), usedforsecurity=False).hexdigest()
        commands = [("EVALSHA", sha, len(keys), *keys, *words) for keys, words in calls]
        try:
            return self.ask(commands) if commands else []
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, redis.exceptions.NoScriptError):
                raise
            self.ask([("SCRIPT", "LOAD", script)])  # the first time, or Redis was started anew
            return self.ask(commands)

    def _ask(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        pipe = self._client().pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        replies: list[Any] = pipe.execute()
        return replies

    def _client(self) -> "redis.Redis":
        if self._made is None:
            import redis  # a tenth of a second, which loading the definitions does not pay
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            seconds = self.patience.total_seconds()
            # One that a restarted server closed is opened again at once; a server that is away is not awaited.
            again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
            try:
                self._made = redis.Redis.from_url(
                    self.url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=again
                )
            except ValueError as error:
                raise DeclarationError(
                    f"{self.place!r} is no address of Redis ({error}); write redis://user:password@host:port/database, "
                    f"or rediss:// for TLS"
                ) from error
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        """Connections stay in their process."""
        return {"url": self.url, "patience": self.patience}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open anew."""
        self.__init__(**state)  # type: ignore[misc]
