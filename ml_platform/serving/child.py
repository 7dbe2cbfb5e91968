"""The serving process itself: BentoML's app under uvicorn on a socket that the parent bound.

Started by ``ml_platform.serving.process``; it ends with its parent, even if that is killed.
"""

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

_GRACE_SECONDS = 10  # for requests in flight, after SIGTERM or the parent's death
_KEEP_ALIVE_SECONDS = 75  # longer than a replay's pauses, so that a client's connection is not cut between days
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, *, by_signal: bool) -> None:
    """End gracefully when the parent is gone, by force if that takes too long.

    by_signal: let the kernel send SIGTERM at once (Linux). It does so when the *thread* that started us ends, so this
    is for children of a main thread; looking at the parent's id works everywhere, half a second later.
    """
    if by_signal and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS + 1)
    os._exit(1)


def run(
    service_name: str, listening: socket.socket, answers: Callable[[], object] = lambda: None, *, refereed: bool = False
) -> None:
    """Serve on the socket until SIGTERM or SIGINT; ``answers`` is called when it does.

    refereed: see ``process.start``.
    """
    from ml_platform.resources.profiles import Profile
    from ml_platform.stores.home import Home

    profile = Profile.from_environment()  # a wrong setting is told before anything heavy is loaded
    import uvicorn
    from bentoml._internal.context import server_context
    from bentoml._internal.log import configure_server_logging

    configure_server_logging()  # first of all: it silences every logger that exists already
    from ml_platform.serving.orderly import OrderlyServer
    from ml_platform.serving.service import prediction_service

    logging.getLogger("ml_platform").setLevel(logging.INFO)
    service = prediction_service(profile, service_name, watched=refereed)
    # What `bentoml serve` sets in its workers; the metrics' labels come from here.
    server_context.service_type = "entry_service"
    server_context.service_name = server_context.bento_name = service.name
    server_context.service_routes = [api.route for api in service.apis.values()]
    config = uvicorn.Config(
        app=service.to_asgi(is_main=True),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",  # or a request to upgrade would never be answered
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    with Home(profile.home).used(f"serve {service_name}"):
        OrderlyServer(config, answers).run(sockets=[listening])


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m ml_platform.serving.child``: for the parent, not for people (they have ``ml-platform serve``)."""
    parser = argparse.ArgumentParser(description="A prediction service on an inherited socket.")
    parser.add_argument("--service", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal-on-death", action="store_true")
    parser.add_argument("--refereed", action="store_true")
    asked = parser.parse_args(arguments)
    end_with_parent(asked.parent, by_signal=asked.signal_on_death)
    run(asked.service, socket.socket(fileno=asked.fd), partial(_say_so, asked.ready_fd), refereed=asked.refereed)


def _say_so(pipe: int) -> None:
    """To the parent, which waits for a byte; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(pipe, b"1")
    os.close(pipe)


if __name__ == "__main__":
    main()
