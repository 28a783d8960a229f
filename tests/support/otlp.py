"""A collector of traces on loopback: OTLP over HTTP, in a thread of the test. Knows nothing of the product.

with Collector() as collector:
    ...  # a server with OTEL_EXPORTER_OTLP_ENDPOINT=collector.url
    [root] = collector.spans(name="POST /chat")
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.waiting import wait_until

KINDS = {1: "internal", 2: "server", 3: "client"}
STATUS_ERROR = 2


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it arrived; ids in hexadecimal, `parent` empty for a root."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    events: tuple[str, ...]
    failed: bool
    began_ns: int
    ended_ns: int
    state: str


class Collector:
    """`status` is what it answers; with `hangs` it takes requests and never answers."""

    def __init__(self, *, status: int = 200, hangs: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.headers: list[dict[str, str]] = []
        self.resource: dict[str, Any] = {}
        self._released = threading.Event()
        self._spans: list[ReceivedSpan] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector._receive(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
                if hangs:
                    collector._released.wait()
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Collector":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _receive(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.paths.add(path)
        self.headers.append({name.lower(): value for name, value in headers.items()})
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = _values(of_resource.resource.attributes)
            for scope in of_resource.scope_spans:
                self._spans += [_read(span) for span in scope.spans]
        self.bodies.append(body)

    def spans(self, *, trace: str = "", name: str = "") -> list[ReceivedSpan]:
        """What arrived so far, in the order in which it began."""
        fitting = [one for one in self._spans if trace in ("", one.trace) and name in ("", one.name)]
        return sorted(fitting, key=lambda one: one.began_ns)

    def root(self, trace: str, timeout_s: float = 10.0) -> ReceivedSpan:
        """The server span of a trace, waited for; a request's own span is the last of its trace to end."""
        [root] = wait_until(
            lambda: [one for one in self.spans(trace=trace) if one.kind == "server"], timeout_s, f"trace {trace}"
        )
        return root

    def tree(self, root: ReceivedSpan) -> dict[str, Any]:
        """Names below names; of several children of one name the later ones are numbered."""
        below: dict[str, Any] = {}
        for child in self.children(root):
            same = sum(name.split(" #")[0] == child.name for name in below)
            below[f"{child.name} #{same + 1}" if same else child.name] = self.tree(child)
        return below

    def children(self, parent: ReceivedSpan) -> Sequence[ReceivedSpan]:
        return [one for one in self.spans(trace=parent.trace) if one.parent == parent.id]


def _read(span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name, kind=KINDS[span.kind], trace=span.trace_id.hex(), id=span.span_id.hex(),
        parent=span.parent_span_id.hex(), attributes=_values(span.attributes),
        events=tuple(event.name for event in span.events), failed=span.status.code == STATUS_ERROR,
        began_ns=span.start_time_unix_nano, ended_ns=span.end_time_unix_nano, state=span.trace_state,
    )  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
