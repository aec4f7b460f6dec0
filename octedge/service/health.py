"""How the service is, over HTTP on loopback: /healthz (it lives), /readyz (the model is warm and certified), /metrics (Prometheus)."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from octedge.errors import UsageError
from octedge.service.monitor import Monitor
from octedge.service.spool import Spool

BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # s
SHOWN = ("received", "repeated", "refused", "segmented", "delivered", "quarantined", "failed")


class Metrics:
    """The counters: events by kind, bytes received, seconds by event; from the spool, objects by state. Labels hold words of ours only."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry = CollectorRegistry()
        self._events = Counter("octedge_events", "Events of the service", ["event"], registry=self.registry)
        self._bytes = Counter("octedge_received_bytes", "Size of the objects received", registry=self.registry)
        self._seconds = Histogram("octedge_seconds", "Time that an event took", ["event"], buckets=BUCKETS, registry=self.registry)
        for event in SHOWN:
            self._events.labels(event)

    def count(self, event: str, facts: dict[str, Any]) -> None:
        """An event of `Monitor`."""
        self._events.labels(event).inc()
        if event == "received":
            self._bytes.inc(facts["bytes"])
        if "ms" in facts:
            self._seconds.labels(event).observe(facts["ms"] / 1000)

    def watch(self, spool: Spool) -> None:
        """Show the spool's objects by state, and the room on its disk."""
        self.registry.register(_Objects(spool))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        from prometheus_client import generate_latest

        return bytes(generate_latest(self.registry))


class _Objects:
    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily("octedge_objects", "Objects in the spool by state", labels=["state"])
        for state, count in self._spool.counts().items():
            family.add_metric([state], count)
        yield family


class Health:
    """The HTTP server, on 127.0.0.1 and nowhere else; port 0 takes a free one."""

    def __init__(self, port: int, monitor: Monitor, metrics: Metrics) -> None:
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(monitor, metrics))
        except OSError as error:
            raise UsageError(f"127.0.0.1:{port}: cannot listen ({error.strerror}); choose another health_port") from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "Health":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])


def _handler(monitor: Monitor, metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._answer(200, b"ok\n")
            elif self.path == "/readyz":
                ready = monitor.ready.is_set()
                self._answer(200 if ready else 503, b"ready\n" if ready else b"the model is not ready\n")
            elif self.path == "/metrics":
                self._answer(200, metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
            else:
                self._answer(404, b"/healthz, /readyz and /metrics are here\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Being asked is no event."""

    return Handler
