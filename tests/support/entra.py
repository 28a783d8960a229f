"""Microsoft Entra ID on loopback, over real HTTP and TLS: the login of applications, and the identity of a machine.

    with EntraEmulator(folder, api_key=azure.api_key) as entra:
        settings = azure.without_keys | entra.client_secret

Its tokens are what the emulated models believe (`azure_tokens`). Knows nothing of the product.
"""

import contextlib
import datetime
import ipaddress
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.azure_tokens import new_token

TENANT = "11111111-2222-3333-4444-555555555555"
APPLICATION = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
SECRET = "emulated~secret~0123456789abcdef"
MACHINE_HEADER = "emulated-identity-header-0123456789"
SCOPE = "https://cognitiveservices.azure.com/.default"
TRACE = "Trace ID: 0a0b0c0d-0000-0000-0000-000000000000 Correlation ID: 1a1b1c1d-0000-0000-0000-000000000000"


class EntraEmulator:
    """A login with TLS and a machine's own endpoint without, in threads of this process."""

    def __init__(self, folder: Path, *, api_key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.api_key = api_key
        self.life_s = 3600.0
        self.delay_s = 0.0
        self.broken = ""
        """What goes wrong instead of a token: a code of the login's, `status` or `silence`."""
        self.assertion = "emulated.kubernetes.token"
        self.requests: list[dict[str, Any]] = []
        self._certificate = folder / "login.pem"
        self.assertion_file = folder / "federated-token"
        self.assertion_file.write_text(self.assertion)
        _write_certificate(self._certificate)
        self._login = _server(self)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        self._login.socket = context.wrap_socket(self._login.socket, server_side=True)
        self._machine = _server(self)

    def __enter__(self) -> "EntraEmulator":
        for server in (self._login, self._machine):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in (self._login, self._machine):
            server.shutdown()
            server.server_close()

    @property
    def application(self) -> dict[str, str]:
        """Who the application is, and where its login stands."""
        return {
            "AZURE_OPENAI_AUTH": "entra", "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": APPLICATION,
            "AZURE_AUTHORITY_HOST": f"https://localhost:{self._login.server_port}",
            "SSL_CERT_FILE": str(self._certificate),
        }  # fmt: skip

    @property
    def client_secret(self) -> dict[str, str]:
        return self.application | {"AZURE_CLIENT_SECRET": SECRET}

    @property
    def workload_identity(self) -> dict[str, str]:
        return self.application | {"AZURE_FEDERATED_TOKEN_FILE": str(self.assertion_file)}

    @property
    def app_service(self) -> dict[str, str]:
        """As App Service, Functions and Container Apps tell a program of its identity."""
        address = f"http://127.0.0.1:{self._machine.server_port}/msi/token"
        return {"AZURE_OPENAI_AUTH": "entra", "IDENTITY_ENDPOINT": address, "IDENTITY_HEADER": MACHINE_HEADER}

    @property
    def virtual_machine(self) -> dict[str, str]:
        """As virtual machines have it, at another address than 169.254.169.254."""
        address = f"http://127.0.0.1:{self._machine.server_port}"
        return {"AZURE_OPENAI_AUTH": "entra", "AZURE_POD_IDENTITY_AUTHORITY_HOST": address}

    def answer(self, method: str, target: str, headers: dict[str, str], form: dict[str, str]) -> tuple[int, Any]:
        """Status and body for one request."""
        path, query = urlsplit(target).path, _single(urlsplit(target).query)
        self.requests.append({"path": path, "query": query, "form": form, "at": time.time()})
        time.sleep(self.delay_s)
        if self.broken == "status":
            return 503, {"error": "temporarily_unavailable"}
        if method == "POST" and path == f"/{TENANT}/oauth2/v2.0/token":
            return self._login_answer(form)
        if path == "/msi/token" and headers.get("x-identity-header") == MACHINE_HEADER:
            return self._machine_answer(query)
        if path == "/metadata/identity/oauth2/token" and headers.get("metadata") == "true":
            return self._machine_answer(query)
        return 404, {"error": "not_found"}

    def _login_answer(self, form: dict[str, str]) -> tuple[int, Any]:
        said = {
            "AADSTS7000215": "Invalid client secret provided. Ensure the secret being sent in the request is the "
            f"client secret value, not the client secret ID, for a secret added to app '{APPLICATION}'.",
            "AADSTS700016": f"Application with identifier '{form.get('client_id')}' was not found in the directory.",
            "AADSTS700213": "No matching federated identity record found for presented assertion subject.",
            "AADSTS500011": f"The resource principal named {form.get('scope')} was not found in the tenant.",
        }
        code = self.broken
        if not code and form.get("client_id") != APPLICATION:
            code = "AADSTS700016"
        elif not code and form.get("scope") != SCOPE:
            code = "AADSTS500011"
        elif not code and "client_assertion" in form:
            code = "" if form["client_assertion"] == self.assertion else "AADSTS700213"
        elif not code and form.get("client_secret") != SECRET:
            code = "AADSTS7000215"
        if code:
            description = f"{code}: {said[code]} {TRACE} Timestamp: 2026-11-27 07:00:00Z"
            return 401, {"error": "invalid_client", "error_description": description, "error_codes": [int(code[6:])]}
        token = new_token(self.api_key, life_s=self.life_s)
        return 200, {"token_type": "Bearer", "expires_in": int(self.life_s), "access_token": token}

    def _machine_answer(self, query: dict[str, str]) -> tuple[int, Any]:
        if query.get("client_id", APPLICATION) != APPLICATION:
            return 400, {"error": "invalid_request", "error_description": "Identity not found", "message":
                         "No User Assigned or Delegated Managed Identity found for specified ClientId."}  # fmt: skip
        token = new_token(self.api_key, life_s=self.life_s)
        ends = str(int(time.time() + self.life_s))
        return 200, {"access_token": token, "expires_on": ends, "resource": query["resource"], "token_type": "Bearer"}


def _server(entra: EntraEmulator) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            form = _single(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
            headers = {name.lower(): value for name, value in self.headers.items()}
            if entra.broken == "silence":
                self.close_connection = True
                return
            status, body = entra.answer(method, self.path, headers, form)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            with contextlib.suppress(OSError):  # who asked did not wait
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server


def _single(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


def _write_certificate(path: Path) -> None:
    """A certificate for localhost that is its own authority, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
