"""Who gets visitors' messages: a mail server and a webhook on loopback, which fail when they are told to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from tests.support.waiting import free_port

LONGEST_HELD_S = 20.0


@dataclass
class MailServer:
    """Real SMTP. The first `failing` messages are refused for now."""

    port: int
    failing: int = 0
    got: list[Message] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.failing:
            self.failing -= 1
            return "451 try again later"
        self.got.append(message_from_bytes(envelope.content))
        return "250 taken"


@contextmanager
def mail_server(*, failing: int = 0) -> Iterator[MailServer]:
    server = MailServer(free_port(), failing)
    controller = Controller(server, hostname="127.0.0.1", port=server.port)
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


@dataclass
class Webhook:
    """Takes webhooks. `answers` are the statuses of the first ones; then all are 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Headers in lower case, and body; of refused ones too."""
    answering: threading.Event = field(default_factory=threading.Event)
    """While it is not set, requests are taken and not answered."""


@contextmanager
def webhook(*, answers: list[int] | None = None) -> Iterator[Webhook]:
    hook = Webhook(answers=list(answers or []))
    hook.answering.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            hook.answering.wait(LONGEST_HELD_S)
            status = hook.answers.pop(0) if hook.answers else 200
            with suppress(OSError):  # who sent it may be dead by now
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"{hook.url}elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
