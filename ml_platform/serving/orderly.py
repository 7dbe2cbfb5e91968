"""A uvicorn server that says when it answers, and that ends without failing a request.

uvicorn closes every connection that is idle when it is told to end. A request that is on its way over such a connection
at that moment meets a closed one, and whoever sent it cannot know whether it counted. So for a short while the
connections stay open here, each answer over one of them says that it is the last, and the caller goes elsewhere with
the next. Only a connection that was idle all the while is closed by us (RFC 9112, 9.3 and 9.6).
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LAST_SECONDS = 1.0  # a caller that is busy asks again within milliseconds
_LOOK_SECONDS = 0.02
_CLOSE = (b"connection", b"close")


class OrderlyServer(uvicorn.Server):  # type: ignore[misc]  # uvicorn is read without its types
    """``answers`` is called once, when connections are accepted."""

    def __init__(self, config: uvicorn.Config, answers: Callable[[], object]) -> None:
        """As uvicorn's."""
        super().__init__(config)
        self._answers = answers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        if self.started:
            self._answers()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No new connections; the next answer over each open one is its last; then as uvicorn's."""
        for server in self.servers:
            server.close()
        held = self.server_state.connections
        for connection in [*held]:
            connection.app = Last(connection.app)
        deadline = asyncio.get_running_loop().time() + _LAST_SECONDS
        while held and asyncio.get_running_loop().time() < deadline and not self.force_exit:
            await asyncio.sleep(_LOOK_SECONDS)
        await super().shutdown(sockets)


class Last:
    """Says with each answer of an application that its connection is closed after it, which the server then does."""

    def __init__(self, app: ASGIApp) -> None:
        """``app`` answers."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """ASGI."""

        async def sends(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await send(message)

        return await self.app(scope, receive, sends)
