"""Serves the platform's metrics on a port, in threads, until it is told to end."""

from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from ml_platform.monitoring.exporter import Exporter
from ml_platform.spec import PortInUse

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    timeout = 10  # seconds; who connects and says nothing goes

    def log_message(self, format: str, *args: Any) -> None:
        """Each scrape in the log would be all there is in the log."""


def application(exporter: Exporter) -> Application:
    """``/metrics``, ``/livez`` (it runs; nothing is read), and 404."""
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry()
    registry.register(exporter)
    metrics: Application = make_wsgi_app(registry)

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environment.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environment, start)
        status, body = ("200 OK", b"ok\n") if path == "/livez" else ("404 Not Found", b"ask /metrics or /livez\n")
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [body]

    return answer


def metrics_server(exporter: Exporter, host: str, port: int) -> WSGIServer:
    """A server that listens; ``serve_forever`` answers, ``server_port`` is the port that was free (port 0).

    Raises:
        PortInUse: somebody else listens there.
    """
    try:
        return make_server(host, port, application(exporter), server_class=_Threads, handler_class=_Silent)
    except OSError as error:
        raise PortInUse(f"cannot listen on {host}:{port} ({error}); choose another --port, or 0 for any") from error
