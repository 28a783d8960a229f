"""Debian's nginx with the site from deploy/nginx in front of the real server."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.conftest import ADMIN_API_KEY, StartServer
from tests.support.azure import AzureEmulator
from tests.support.nginx import NGINX, SITES, Proxy, nginx, prepared
from tests.support.small_site import FACTS
from tests.support.waiting import free_port, wait_until

ONE, OTHER = "127.0.0.2", "127.0.0.3"
"""Two visitors: addresses of this machine's loopback that are not the proxy's."""


@pytest.fixture
def in_front(tmp_path: Path) -> Iterator[Callable[[int], Proxy]]:
    """`in_front(port)`: nginx in front of the server on that port."""
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(nginx(tmp_path / f"nginx-{port}", port))


def search(visitor: httpx.Client, **headers: str) -> int:
    return visitor.post("/search", json={"query": "warranty"}, headers=headers).status_code


def test_a_stream_arrives_through_nginx_while_the_model_still_writes(
    shared_server: StartServer, in_front: Callable[[int], Proxy], azure: AzureEmulator
) -> None:
    words = [f"word{number} " for number in range(40)]
    azure.behave(token_delay_ms=50, tokens=words)
    proxy = in_front(shared_server(workers=1).port)
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
    shared_server: StartServer, in_front: Callable[[int], Proxy]
) -> None:
    server = shared_server(workers=1)
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
    shared_server: StartServer, in_front: Callable[[int], Proxy], tmp_path: Path
) -> None:
    server = shared_server(workers=1)
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
    shared_server: StartServer, in_front: Callable[[int], Proxy]
) -> None:
    proxy = in_front(shared_server(workers=1).port)
    assert proxy.visitor(ONE).post("/chat", content=b"x" * 70_000).status_code == 413


def test_uploads_of_the_largest_size_pass_and_who_may_not_is_told_so(
    start_server: StartServer, in_front: Callable[[int], Proxy], site_build: Path, tmp_path: Path
) -> None:
    index = shutil.copytree(site_build, tmp_path / "index")
    server = start_server(workers=1, UPLOADS="on", ADMIN_API_KEY=ADMIN_API_KEY, VECTOR_DB_PATH=index)
    visitor, key = in_front(server.port).visitor(ONE), {"Authorization": f"Bearer {ADMIN_API_KEY}"}
    whole = b"%PDF-1.7\n" + bytes(10_000_000 - 9)

    def post(content: bytes, count: int, headers: dict[str, str]) -> httpx.Response:
        files = [("files", (f"{number}.pdf", content)) for number in range(count)]
        return visitor.post("/documents", files=files, headers=headers)

    assert post(whole, 5, key).status_code == 202
    assert visitor.put("/documents/one.pdf", content=whole, headers=key).status_code == 202
    larger = post(whole + b"x", 1, key)
    assert (larger.status_code, larger.json()["detail"]) == (413, "0.pdf is larger than 10 MB.")
    assert post(whole, 5, {}).status_code == 401


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
