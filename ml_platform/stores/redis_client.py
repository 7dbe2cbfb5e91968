"""A client of one Redis server that gives up soon, finds back by itself, and says in a sentence what is away."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from hashlib import sha1
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ml_platform.spec import DeclarationError, StoreUnavailable

if TYPE_CHECKING:
    import redis

_SENT_AT_ONCE = 1 << 14  # bytes: a script with its tiles, or all commands of a read

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

        Commands are sent as they are made, so Redis works on the first while the last are still to be made.

        Raises:
            StoreUnavailable: it cannot be reached, or refuses a command; others may have been done.
            DeclarationError: the URL is of another form.
        """
        import redis

        made: list[bytes] = []
        left = iter(commands)
        try:
            try:
                return self._ask(made, left)
            except redis.ConnectionError:  # closed while it lay idle: Redis was started again
                return self._ask(made, left)
        except redis.RedisError as error:
            raise StoreUnavailable(
                f"Redis at {self.place} does not answer as it should ({type(error).__name__}: {error}); look whether "
                f"it runs and has memory left; the next call tries again"
            ) from error

    def run(self, script: str, calls: Iterable[tuple[Sequence[Word], Sequence[Word]]]) -> list[Any]:
        """The replies to a script called with each (keys, arguments); it runs whole or not at all, each time.

        Raises:
            StoreUnavailable: see ``ask``.
        """
        import redis

        sha = sha1(script.encode(), usedforsecurity=False).hexdigest()
        commands: list[Sequence[Word]] = []

        def made() -> Iterator[Sequence[Word]]:
            for keys, words in calls:
                commands.append(("EVALSHA", sha, len(keys), *keys, *words))
                yield commands[-1]

        try:
            return self.ask(made())
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, redis.exceptions.NoScriptError):
                raise
            self.ask([("SCRIPT", "LOAD", script)])  # the first time, or Redis was started anew
            return self.ask(commands)

    def _ask(self, made: list[bytes], left: Iterator[Sequence[Word]]) -> list[Any]:
        """``made``: commands that were sent before, in vain; ``left`` joins them."""
        import redis

        pool = self._client().connection_pool
        connection: Any = pool.get_connection()
        try:
            waiting = bytearray().join(made)
            for command in left:
                made.append(b"".join(connection.pack_command(*command)))
                waiting += made[-1]
                if len(waiting) > _SENT_AT_ONCE:
                    connection.send_packed_command([waiting])
                    waiting = bytearray()
            connection.send_packed_command([waiting])
            replies, refused = [], None
            for _ in made:
                try:
                    replies.append(connection.read_response())
                except redis.ResponseError as error:
                    refused = refused or error
        except BaseException:
            connection.disconnect()  # replies may still be to come, and would be taken for those of the next call
            raise
        finally:
            pool.release(connection)
        if refused:
            raise refused
        return replies

    def _client(self) -> "redis.Redis":
        if self._made is None:
            import redis  # a tenth of a second, which loading the definitions does not pay
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            seconds = self.patience.total_seconds()
            never = Retry(NoBackoff(), 0)  # its own default waits for seconds
            try:
                self._made = redis.Redis.from_url(
                    self.url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=never
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
