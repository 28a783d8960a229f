"""Debian's nginx with the site from deploy/nginx in front of servers of a test's own."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.waiting import REPOSITORY, free_port, wait_until

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
BOUNDS = " max_fails=5 fail_timeout=2s;"
SITES = REPOSITORY / "deploy" / "nginx"

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

    def __init__(self, https: int, http: int, certificate: Path) -> None:
        self.http = f"http://127.0.0.1:{http}"
        self.base_url = f"https://127.0.0.1:{https}"
        self.trust = ssl.create_default_context(cafile=str(certificate))
        self._clients: list[httpx.Client] = []

    def visitor(self, address: str) -> httpx.Client:
        transport = httpx.HTTPTransport(verify=self.trust, local_address=address)
        client = httpx.Client(base_url=self.base_url, transport=transport, timeout=30)
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


@contextmanager
def nginx(folder: Path, *ports: int) -> Iterator[Proxy]:
    """In front of the servers on these ports. It shares the visitors out among them."""
    https, http = free_port(), free_port()
    conf, certificate = prepared(
        folder,
        "rag-server.conf",
        {
            f"server 127.0.0.1:8000{BOUNDS}": " ".join(f"server 127.0.0.1:{port}{BOUNDS}" for port in ports),
            "listen 443 ssl": f"listen 127.0.0.1:{https} ssl",
            "listen 80;": f"listen 127.0.0.1:{http};",
            "/etc/letsencrypt/live/chat.example.com/": f"{folder}/certificates/",
            "/var/log/nginx/access.log": f"{folder}/access.log",
        },
    )
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(conf)], stderr=subprocess.PIPE)
    proxy = Proxy(https, http, certificate)

    def answers() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            return bool(proxy.visitor("127.0.0.1").get("/health").status_code)
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, 20, "nginx answers")
        yield proxy
    finally:
        proxy.close()
        process.terminate()
        process.wait(20)
        if process.stderr is not None:
            process.stderr.close()
