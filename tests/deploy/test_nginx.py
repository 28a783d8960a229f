"""Debian's nginx with the site from deploy/nginx in front of the real server."""

import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.azure import AzureEmulator
from tests.support.small_site import FACTS
from tests.support.waiting import REPOSITORY, free_port, wait_until

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
SITES = REPOSITORY / "deploy" / "nginx"
ONE, OTHER = "127.0.0.2", "127.0.0.3"
"""Two visitors: addresses of this machine's loopback that are not the proxy's."""

MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include site.conf;
}}
"""


class Proxy:
    """nginx with our site; `visitor(address)` is a client that comes from that address and trusts its certificate."""

    def __init__(self, folder: Path, https: int, http: int, certificate: Path) -> None:
        self.http = f"http://127.0.0.1:{http}"
        self._https = f"https://127.0.0.1:{https}"
        self._trust = ssl.create_default_context(cafile=str(certificate))
        self._clients: list[httpx.Client] = []

    def visitor(self, address: str) -> httpx.Client:
        transport = httpx.HTTPTransport(verify=self._trust, local_address=address)
        client = httpx.Client(base_url=self._https, transport=transport, timeout=30)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


def prepared(folder: Path, site: str, changes: dict[str, str]) -> tuple[Path, Path]:
    """A configuration folder with the site in it, and its certificate; every change is one that the site needs."""
    certificate = folder / "certificates" / "fullchain.pem"
    certificate.parent.mkdir(parents=True)
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=chat.example.com", "-addext", "subjectAltName=DNS:chat.example.com,IP:127.0.0.1",
         "-keyout", str(certificate.with_name("privkey.pem")), "-out", str(certificate)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (folder / "snippets").mkdir()
    shutil.copy(SITES / "rag-server-proxy.conf", folder / "snippets")
    text = (SITES / site).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, f"{site} has no {old!r}"
        text = text.replace(old, new)
    (folder / "site.conf").write_text(text, encoding="utf-8")
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder), encoding="utf-8")
    return folder / "nginx.conf", certificate


@pytest.fixture
def in_front(tmp_path: Path) -> Iterator[Callable[[int], Proxy]]:
    """`in_front(port)`: nginx in front of the server on that port."""
    running: list[tuple[subprocess.Popen[bytes], Proxy]] = []

    def start(port: int) -> Proxy:
        folder, https, http = tmp_path / f"nginx-{port}", free_port(), free_port()
        conf, certificate = prepared(
            folder,
            "rag-server.conf",
            {
                "127.0.0.1:8000": f"127.0.0.1:{port}",
                "listen 443 ssl": f"listen 127.0.0.1:{https} ssl",
                "listen 80;": f"listen 127.0.0.1:{http};",
                "/etc/letsencrypt/live/chat.example.com/": f"{folder}/certificates/",
                "/var/log/nginx/access.log": f"{folder}/access.log",
            },
        )
        process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(conf)], stderr=subprocess.PIPE)
        proxy = Proxy(folder, https, http, certificate)
        running.append((process, proxy))

        def answers() -> bool:
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                return bool(proxy.visitor("127.0.0.1").get("/health").status_code)
            except httpx.TransportError:
                return False

        wait_until(answers, 20, "nginx answers")
        return proxy

    yield start
    for process, proxy in running:
        proxy.close()
        process.terminate()
        process.wait(20)
        if process.stderr is not None:
            process.stderr.close()


def search(visitor: httpx.Client, **headers: str) -> int:
    return visitor.post("/search", json={"query": "warranty"}, headers=headers).status_code


def test_a_stream_arrives_through_nginx_while_the_model_still_writes(
    start_server: StartServer, in_front: Callable[[int], Proxy], azure: AzureEmulator
) -> None:
    words = [f"word{number} " for number in range(40)]
    azure.behave(token_delay_ms=50, tokens=words)
    proxy = in_front(start_server(workers=1).port)
    writing_at_first_delta, text = None, ""
    body = {"message": FACTS[0].question}
    with proxy.visitor(ONE).stream("POST", "/chat/stream", json=body) as response:
        assert response.status_code == 200
        event = ""
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "delta":
                if writing_at_first_delta is None:
                    writing_at_first_delta = azure.stats()["now"].get("chat", 0)
                text += json.loads(value)["text"]
    assert writing_at_first_delta == 1
    assert text.split() == [word.strip() for word in words]
    assert event == "done"


def test_limits_are_per_visitor_behind_nginx_and_no_header_escapes_them(
    start_server: StartServer, in_front: Callable[[int], Proxy]
) -> None:
    proxy = in_front(start_server(RATE_LIMIT_SEARCH="2/minute").port)
    one, other = proxy.visitor(ONE), proxy.visitor(OTHER)
    assert [search(one) for _ in range(3)] == [200, 200, 429]
    spoofed = [search(one, **{"X-Forwarded-For": claim}) for claim in ("10.9.9.9", "127.0.0.1", "10.1.1.1, 127.0.0.1")]
    assert spoofed == [429, 429, 429]
    assert [search(other) for _ in range(3)] == [200, 200, 429]


def test_a_proxy_that_is_not_named_makes_all_visitors_share_one_limit(
    start_server: StartServer, in_front: Callable[[int], Proxy]
) -> None:
    # The trap that docs/deployment.md warns of: it has to look as described there.
    server = start_server(RATE_LIMIT_SEARCH="2/minute", FORWARDED_ALLOW_IPS="10.0.0.5")
    proxy = in_front(server.port)
    assert [search(proxy.visitor(address)) for address in (ONE, OTHER, ONE, OTHER)] == [200, 200, 429, 429]


def test_plain_http_leads_to_https_and_metrics_stay_inside(
    start_server: StartServer, in_front: Callable[[int], Proxy]
) -> None:
    server = start_server(workers=1)
    proxy = in_front(server.port)
    moved = httpx.get(f"{proxy.http}/demo?x=1", headers={"Host": "chat.example.com"}, trust_env=False)
    assert (moved.status_code, moved.headers["location"]) == (301, "https://chat.example.com/demo?x=1")
    visitor = proxy.visitor(ONE)
    assert httpx.get(f"{server.base_url}/metrics", trust_env=False).status_code == 200
    spellings = (
        "/metrics",
        "/metrics%0A",
        "/metrics/",
        "/%2Fmetrics",
        "/%6Detrics",
        "/metrics;x",
        "/docs/../metrics%0A",
    )
    assert [visitor.get(path).status_code for path in spellings] == [404] * len(spellings)
    page = visitor.get("/")
    assert page.status_code == 200
    assert page.headers["strict-transport-security"] == "max-age=31536000"
    assert "x-request-id" in page.headers


def test_the_log_of_nginx_has_the_visitors_address_and_no_id_of_a_session(
    start_server: StartServer, in_front: Callable[[int], Proxy], tmp_path: Path
) -> None:
    server = start_server(workers=1)
    proxy = in_front(server.port)
    answer = proxy.visitor(ONE).get("/sessions/some-session-0001/history")
    assert answer.status_code == 200
    log = tmp_path / f"nginx-{server.port}" / "access.log"
    wait_until(lambda: answer.headers["x-request-id"] in log.read_text(), 10, "nginx has written its line")
    assert ONE in log.read_text()
    assert "some-session" not in log.read_text()


def test_the_error_log_of_nginx_has_no_id_of_a_session(in_front: Callable[[int], Proxy], tmp_path: Path) -> None:
    away = free_port()
    visitor = in_front(away).visitor(ONE)
    for path in (
        "/sessions/some-session-0001",
        "/x/..//sessions/some-session-0001/history",
        "/session%73/some-session-0001",
    ):
        assert visitor.delete(path).status_code == 502
        assert visitor.post(path, content=b"x" * 70_000).status_code == 413
    assert visitor.get("/the-last-one").status_code == 502
    log = tmp_path / f"nginx-{away}" / "error.log"
    wait_until(lambda: "/the-last-one" in log.read_text(), 10, "nginx has written its line")
    assert "some-session" not in log.read_text()


def test_nginx_refuses_what_the_server_would_refuse(
    start_server: StartServer, in_front: Callable[[int], Proxy]
) -> None:
    proxy = in_front(start_server(workers=1).port)
    assert proxy.visitor(ONE).post("/chat", content=b"x" * 70_000).status_code == 413


def test_the_site_for_compose_differs_only_where_a_container_does(tmp_path: Path) -> None:
    changes = {
        "server rag-server:8000": "server 127.0.0.1:8000", "    http2 on;\n": "",
        "/var/log/nginx/access.log": f"{tmp_path}/access.log",
    }  # fmt: skip
    conf, _ = prepared(tmp_path / "nginx", "compose.conf", changes)
    done = subprocess.run(
        [NGINX, "-t", "-p", str(conf.parent), "-c", str(conf)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr

    def secure_part(site: str) -> list[str]:
        text = (SITES / site).read_text(encoding="utf-8")
        lines = [line.strip() for line in text.rpartition("server {")[2].splitlines()]
        differing = ("listen", "http2", "server_name", "ssl_certificate")
        return [line for line in lines if line and not line.startswith(differing)]

    assert secure_part("compose.conf") == secure_part("rag-server.conf")
