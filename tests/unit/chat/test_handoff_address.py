"""The address that a webhook's message goes to is the one that was checked, however often the name's answer changes."""

import asyncio
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rag.chat.owner.handoff import Handoffs
from rag.llm.http_client import posted
from rag.public_addresses import NotPublic, is_public
from rag.settings import Settings
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.outbox import SqliteOutbox
from tests.support.receivers import webhook

NAME = "hooks.brinewell.example"
UNROUTED = "3ffe::1"
"""Counts as of the open internet; nobody has it, since IANA took it back."""


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the system's resolver says of `NAME`, one answer a look-up; the last one stays."""
    scripted: list[list[str]] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return real(host, port, *arguments, **options)
        found = scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return [entry for address in found for entry in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return scripted


def delivered(url: str, folder: Path) -> int:
    """One try of one message to a webhook that has to be of the open internet; how many messages wait after it."""

    async def run() -> int:
        settings = Settings(escalation_webhook_url=url)
        outbox = SqliteOutbox(path=folder / "outbox.sqlite3", clocks=Clocks.system())
        handoffs = Handoffs(outbox=outbox, settings=settings, post=partial(posted, timeout_s=1.0, allows=is_public))
        await handoffs.take(email="ada@example.org", message="Call.", conversation=None, page="")
        waiting = await outbox.next_due(lease_s=30)
        assert waiting is not None
        await handoffs._deliver(waiting)
        left = await outbox.count()
        await handoffs.close()
        return left

    return asyncio.run(run())


def test_a_name_that_turns_private_after_it_was_checked_is_not_followed(
    answers: list[list[str]], tmp_path: Path
) -> None:
    with webhook() as hook:
        answers += [[UNROUTED], ["127.0.0.1"]]
        delivered(hook.url.replace("127.0.0.1", NAME), tmp_path)
        assert hook.got == []


@pytest.mark.parametrize("written", [NAME, "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_a_webhook_that_is_nowhere_but_on_a_private_network_is_given_up(
    written: str, answers: list[list[str]], tmp_path: Path
) -> None:
    answers += [["127.0.0.1", "10.0.0.1"]]
    with webhook() as hook:
        assert delivered(hook.url.replace("127.0.0.1", written), tmp_path) == 0
        assert hook.got == []


@pytest.mark.parametrize("written", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1."])
def test_no_other_spelling_of_a_private_address_gets_through(written: str, tmp_path: Path) -> None:
    with webhook() as hook:
        delivered(hook.url.replace("127.0.0.1", written), tmp_path)
        assert hook.got == []


def test_a_public_address_that_does_not_answer_is_tried_again_and_the_private_one_beside_it_never(
    answers: list[list[str]], tmp_path: Path
) -> None:
    answers += [[UNROUTED, "127.0.0.1"]]
    with webhook() as hook:
        assert delivered(hook.url.replace("127.0.0.1", NAME), tmp_path) == 1
        assert hook.got == []


def only(*addresses: str) -> Any:
    return lambda address: str(address) in addresses


def test_the_connection_goes_to_the_address_that_was_allowed_under_the_name_that_was_asked(
    answers: list[list[str]],
) -> None:
    answers += [["127.0.0.1"], ["10.0.0.1"]]
    with webhook() as hook:
        url = hook.url.replace("127.0.0.1", NAME)
        assert asyncio.run(posted(url, b"{}", {}, timeout_s=2, allows=only("127.0.0.1"))) == 200
        [(headers, _)] = hook.got
        assert headers["host"].startswith(NAME)


def test_the_certificate_has_to_be_that_of_the_name(
    answers: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers += [["127.0.0.1"]]
    with secure_server(tmp_path, name=NAME) as (port, authority):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))

        def status(host: str) -> int:
            return asyncio.run(posted(f"https://{host}:{port}/", b"{}", {}, timeout_s=2, allows=only("127.0.0.1")))

        assert status(NAME) == 200
        with pytest.raises(Exception, match="certificate verify failed"):
            status("127.0.0.1")
    with pytest.raises(NotPublic):
        asyncio.run(posted(f"https://{NAME}/", b"{}", {}, timeout_s=2, allows=is_public))


@contextmanager
def secure_server(folder: Path, *, name: str) -> Iterator[tuple[int, Path]]:
    """Answers 200 on loopback with a certificate for `name` alone; its port, and the certificate to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    both, trusted = folder / "both.pem", folder / "trusted.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(private + trusted.read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port, trusted
    finally:
        server.shutdown()
        server.server_close()
