"""Documents come in over HTTP while the server runs: taken, read, embedded, found by every worker, removed for good."""

import os
import random
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.search.hot import generation
from tests.conftest import ADMIN_API_KEY, StartServer
from tests.e2e.test_live_builds import TAKEN_UP_WITHIN_S, no_visitor_notices
from tests.support.azure import AzureEmulator
from tests.support.served import open_served
from tests.support.server import RagServer, run_module
from tests.support.waiting import wait_until

KEY, OTHER_KEY = "ingest-key-of-the-tests-0123456789abcdef", "search-key-of-the-tests-0123456789abcdef"
KILLS = int(os.environ.get("KILLS", "5"))
TEXT = "# Feeding shrimps\n\nThe shrimps get {} grams of food a day.\n"
QUESTION = "How much food do the shrimps get?"


class Uploads:
    """Who has a key with the scope ingest."""

    def __init__(self, server: RagServer, root: Path) -> None:
        self.server, self.root = server, root
        self.state = server.folder / "state" / "documents"

    def request(self, method: str, path: str, *, key: str = KEY, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
        return httpx.request(
            method, f"{self.server.base_url}{path}", headers=headers, timeout=30, trust_env=False, verify=False, **more
        )

    def post(self, *files: tuple[str, bytes], **more: Any) -> httpx.Response:
        form = [("files", (name, content, "application/octet-stream")) for name, content in files]
        return self.request("POST", "/documents", files=form, **more)

    def documents(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.request("GET", "/documents").json()["documents"]
        return listed

    def one(self, identity: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.request("GET", f"/documents/{identity}").json()
        return shown

    def settled(self, identity: str, status: str = "live", within_s: float = 30) -> dict[str, Any]:
        wait_until(lambda: self.one(identity)["status"] == status, within_s, f"{identity} is {status}")
        return self.one(identity)

    def found(self, query: str = QUESTION) -> str:
        answer = httpx.post(
            f"{self.server.base_url}/search", json={"query": query, "k": 1}, trust_env=False, verify=False
        )
        content: str = answer.json()["results"][0]["content"]
        return content

    def figures(self) -> dict[str, float]:
        lines = httpx.get(f"{self.server.base_url}/metrics", trust_env=False).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def everywhere(self, text: str, *, there: bool = True) -> None:
        """Every worker finds it, or none: within the time that is promised."""
        began = time.monotonic()
        wait_until(lambda: all((text in self.found()) is there for _ in range(12)), 10, f"{text} is {there}")
        assert time.monotonic() - began < TAKEN_UP_WITHIN_S

    def on_disk(self, text: bytes) -> list[str]:
        files = [path for folder in (self.root, self.state) for path in folder.rglob("*") if path.is_file()]
        return [str(path) for path in files if text in path.read_bytes()]


def settings_of(root: Path) -> dict[str, Any]:
    keys = f"{KEY};scopes=ingest,{OTHER_KEY};scopes=search"
    return {"UPLOADS": "on", "API_KEYS": keys, "VECTOR_DB_PATH": root}


@pytest.fixture
def start_uploads(start_server: StartServer, site_build: Path, tmp_path: Path) -> Callable[..., Uploads]:
    """A server of the test's own, on an index of its own."""

    def start(**given: Any) -> Uploads:
        root = tmp_path / "vector_db"
        if not root.exists():
            shutil.copytree(site_build, root)
        return Uploads(start_server(**settings_of(root), **given), root)

    return start


@pytest.fixture(scope="module")
def running(
    site_build: Path, azure_process: AzureEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Uploads]:
    folder = tmp_path_factory.mktemp("uploads")
    root = shutil.copytree(site_build, folder / "vector_db")
    settings = {**azure_process.environment, **settings_of(root), "ADMIN_API_KEY": ADMIN_API_KEY}
    settings |= {"VECTOR_DB_PATH": str(root), "RATE_LIMIT_ENABLED": "false", "BUDGET_SITE": "10000000/day"}
    with RagServer.start(settings, folder, workers=2) as server:
        yield Uploads(server, root)


@pytest.fixture
def uploads(running: Uploads, azure: AzureEmulator) -> Iterator[Uploads]:
    """A server that all share, without documents before and after."""
    yield running
    for document in running.documents():
        assert running.request("DELETE", f"/documents/{document['id']}").status_code == 204


def test_uploads_are_off_unless_switched_on(server: RagServer) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_API_KEY}"}
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"{server.base_url}/documents", headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    for path, word in (("/openapi.json", "/documents"), ("/metrics", "rag_upload")):
        assert word not in httpx.get(f"{server.base_url}{path}", trust_env=False).text
    assert not (server.folder / "state" / "documents").exists()


def test_a_document_is_found_by_every_worker_and_removed_for_good(uploads: Uploads) -> None:
    with no_visitor_notices(uploads.server):
        answer = uploads.post(("feeding.md", TEXT.format(12).encode()), ("price.csv", b"Item,Price\nShrimp,3\n"))
        assert answer.status_code == 202, answer.text
        taken = answer.json()["documents"]
        assert [(one["name"], one["status"]) for one in taken] == [("feeding.md", "queued"), ("price.csv", "queued")]
        identity = taken[0]["id"]
        assert re.fullmatch("[0-9a-f]{16}", identity)
        live = uploads.settled(identity)
        uploads.everywhere("12 grams of food")
        [child] = ingest_pids(uploads)
        assert (os.getpriority(os.PRIO_PROCESS, child), os.sched_getscheduler(child)) == (10, os.SCHED_BATCH)
        assert (live["passages"], live["reason"]) == (1, None)
        assert [one["name"] for one in uploads.documents()] == ["feeding.md", "price.csv"]

        again = uploads.request("PUT", "/documents/feeding.md", content=TEXT.format(13).encode())
        assert (again.status_code, again.json()["documents"][0]["id"]) == (202, identity)
        uploads.settled(identity)
        uploads.everywhere("13 grams of food")
        same = uploads.request("PUT", "/documents/feeding.md", content=TEXT.format(13).encode())
        assert same.json()["documents"] == [{"id": identity, "name": "feeding.md", "status": "live"}]
        [original] = uploads.state.glob(f"{identity}/*.md")
        assert original.read_text() == TEXT.format(13)
        assert original.stat().st_mode & 0o777 == 0o600

        assert uploads.request("GET", "/documents/feeding.md").json() == uploads.one(identity)
        assert uploads.request("DELETE", "/documents/feeding.md").status_code == 204
        uploads.everywhere("grams of food", there=False)
        assert uploads.request("GET", f"/documents/{identity}").status_code == 404
        assert uploads.request("DELETE", f"/documents/{identity}").status_code == 404
        assert not (uploads.state / identity).exists()
    # What is left in the index leaves it at the next merge; here it is asked for.
    queue = uploads.state / "queue" / "removed"
    assert queue.exists()
    os.utime(queue, (time.time() - 3600, time.time() - 3600))
    wait_until(lambda: not uploads.on_disk(b"grams of food"), 40, "its text has left the disk")


def raw(server: RagServer, head: str, body: bytes = b"") -> str:
    """The answer's first line and code to a request that is written by hand."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = b""
        try:
            connection.sendall(body)
            while chunk := connection.recv(65536):
                answer += chunk
                if b"request_id" in answer:
                    break
        except ConnectionError:
            pass
    return answer.decode("utf-8", "replace")


def test_who_may_not_is_told_before_a_byte_of_the_body_is_read(uploads: Uploads) -> None:
    server = uploads.server
    head = "{} /documents{} HTTP/1.1\nHost: x\n{}Content-Type: multipart/form-data; boundary=b\nContent-Length: {}"
    for path, method in (("", "POST"), ("/x.md", "PUT")):
        # Nothing of the body is ever sent: whoever waited for it would answer nobody.
        assert " 401 " in raw(server, head.format(method, path, "", 1000))
        assert " 401 " in raw(server, head.format(method, path, "Authorization: Bearer wrong\n", 1000))
        assert " 403 " in raw(server, head.format(method, path, f"Authorization: Bearer {OTHER_KEY}\n", 1000))
        too_large = raw(server, head.format(method, path, f"Authorization: Bearer {KEY}\n", 10**9))
        assert " 413 " in too_large
        assert "body_too_large" in too_large
    assert " 401 " in raw(server, "GET /documents HTTP/1.1\nHost: x\nConnection: close")


def form(*parts: bytes, preamble: bytes = b"", end: bytes = b"--b--\r\n") -> bytes:
    return preamble + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


def part(name: str, content: bytes = b"text", field: str = "files") -> bytes:
    return f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + content


def test_every_byte_counts_and_every_refusal_is_in_words(start_uploads: Callable[..., Uploads]) -> None:
    uploads = start_uploads(workers=1, MAX_FILE_SIZE="100kB", MAX_FILES_PER_REQUEST="2", KEEP_UPLOADS="false")

    def refused(body: bytes, *, chunked: bool = False) -> tuple[int, str]:
        content: Any = (body[i : i + 50_000] for i in range(0, len(body), 50_000)) if chunked else body
        answer = uploads.request(
            "POST", "/documents", content=content, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        return answer.status_code, answer.json()["detail"]

    large = b"x" * 100_001
    assert refused(form(part("a.md", large))) == (413, "a.md is larger than 100 kB.")
    assert refused(form(part("a.md", large)), chunked=True) == (413, "a.md is larger than 100 kB.")
    # What no parser shows: before the first part, behind the last one, in a field that is no file.
    for chunked in (False, True):
        hidden = [
            form(part("a.md"), preamble=b"p" * 300_000 + b"\r\n"),
            form(part("a.md"), end=b"--b--\r\n" + b"e" * 300_000),
            form(b'Content-Disposition: form-data; name="x"\r\n\r\n' + b"f" * 300_000, part("a.md")),
        ]
        codes = [refused(body, chunked=chunked)[0] for body in hidden]
        assert codes in ([413, 413, 413], [422, 413, 413]), "a parser may refuse what stands before the first part"
    three = form(part("a.md"), part("b.md"), part("c.md"))
    assert refused(three) == (422, "A request may hold 2 files at most.")
    assert refused(form(part("a.exe")))[0] == 415
    assert refused(form(part("a"))) == (
        415, "a is not of a type that is taken: pdf, docx, txt, md, csv, html."
    )  # fmt: skip
    assert refused(form(part("a.md"), part("folder/a.md")))[1] == (
        "Two files have one name, and a name is one document."
    )
    assert refused(form(part("a.md", field="other"))) == (422, "Send each file in a field `files`.")
    assert refused(form()) == (422, "There is no file in the field `files`.")
    for broken in (b"", b"--b", b"nothing", form(part("a.md"), end=b""), b"--b\r\n" + b"X" * 9000 + b"\r\n\r\n"):
        assert refused(broken)[0] == 422, broken[:50]
    for name in ("..", ".md", "a\u202efdp.md", "\u200b.md", "x" * 300 + ".md"):
        assert refused(form(part(name)))[0] in (415, 422), name
    many = b"".join(f"X-{number}: y\r\n".encode() for number in range(100))
    assert refused(form(many + part("a.md")))[0] == 422
    assert uploads.request("POST", "/documents", json={}).status_code == 415
    assert uploads.request("PUT", "/documents/a.md", content=large).status_code == 413
    assert uploads.request("PUT", "/documents/a.exe", content=b"MZ").status_code == 415
    assert uploads.documents() == []
    assert list(uploads.state.glob(".receiving-*")) == [], "nothing is left of what was refused"
    escaping = uploads.post(("../../../../etc/passwd.md", b"# Text\n\nof a file"))
    [document] = escaping.json()["documents"]
    assert document["name"] == "passwd.md"
    # And the original goes where it should not be kept.
    uploads.settled(document["id"])
    kept = uploads.state / document["id"]
    wait_until(lambda: [path.name for path in kept.iterdir()] == ["about.json"], 5, "the original is gone")


def test_what_cannot_be_read_fails_with_the_reason(uploads: Uploads) -> None:
    taken = uploads.post(("broken.pdf", b"%PDF-1.4 broken"), ("empty.md", b"")).json()["documents"]
    reasons = {one["name"]: uploads.settled(one["id"], "failed")["reason"] for one in taken}
    assert reasons["empty.md"] == "empty file"
    assert "PDF" in reasons["broken.pdf"]
    shown = uploads.figures()
    assert (shown['rag_uploads{status="failed"}'], shown['rag_uploads_failed{reason="unreadable"}']) == (2, 2)
    # Another file of that name is another try.
    again = uploads.request("PUT", "/documents/empty.md", content=TEXT.format(5).encode()).json()["documents"][0]
    assert again["id"] in {one["id"] for one in taken}
    uploads.settled(again["id"])


def test_a_request_with_the_same_key_is_done_once(uploads: Uploads) -> None:
    headers, spent = {"Idempotency-Key": "delivery-17"}, uploads.figures()["rag_budget_spent"]
    first = uploads.post(("feeding.md", TEXT.format(12).encode()), headers=headers)
    identity = first.json()["documents"][0]["id"]
    uploads.settled(identity)
    assert uploads.post(("feeding.md", TEXT.format(12).encode()), headers=headers).json()["documents"][0] == {
        "id": identity, "name": "feeding.md", "status": "live",
    }  # fmt: skip
    wait_until(lambda: uploads.figures()["rag_budget_spent"] > spent, 10, "what is embedded counts, for the site")
    other = uploads.post(("feeding.md", TEXT.format(13).encode()), headers=headers)
    assert (other.status_code, other.json()["detail"]) == (422, "This Idempotency-Key came with other files before.")
    uploads.request("DELETE", f"/documents/{identity}")
    # Told as it was told before, and nothing comes back.
    assert uploads.post(("feeding.md", TEXT.format(12).encode()), headers=headers).json() == first.json()
    assert uploads.documents() == []


def test_while_the_embeddings_are_down_documents_wait(uploads: Uploads, azure: AzureEmulator) -> None:
    # A refusal: an endpoint that only fails is asked again for a while before anything is said.
    azure.fail("status", target="embeddings", status=401)
    identity = uploads.post(("feeding.md", TEXT.format(12).encode())).json()["documents"][0]["id"]
    waits = "the embedding model cannot be reached at the moment; it is tried again"
    wait_until(lambda: uploads.one(identity)["reason"] == waits, 60, "it says that it waits")
    assert uploads.one(identity)["status"] == "queued"
    assert uploads.figures()["rag_upload_waiting_seconds"] > 0
    azure.heal()
    uploads.settled(identity, within_s=60)

    def shown(*names: str) -> list[float]:
        figures = uploads.figures()
        return [figures[name] for name in names]

    # A worker counts by and by, and has five seconds to take a document up.
    wanted = ('rag_uploads{status="live"}', "rag_upload_waiting_seconds", "rag_index_segments")
    wait_until(lambda: shown(*wanted) == [1, 0, 1], 20, "a scrape shows it")
    assert shown("rag_upload_duration_seconds")[0] > 0


def ingest_pids(uploads: Uploads) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"ingest" in command and str(uploads.root).encode() in command:
            found.append(int(folder.name))
    return found


def test_killed_anywhere_each_document_is_live_once_or_queued_again(start_uploads: Callable[..., Uploads]) -> None:
    """The ingest process and workers are killed while documents come in, are replaced and removed."""
    uploads = start_uploads(workers=4)
    generator, stop, most = random.Random(7), threading.Event(), 0
    wanted: dict[str, str] = {}
    last: list[object] = [None]

    def bring() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"doc{number % 7}.md"
            try:
                answer = uploads.request("PUT", f"/documents/{name}", content=TEXT.format(f"{number}x").encode())
                last[0] = answer.text
                if answer.status_code == 202:
                    wanted[name] = f"{number}x"
            except httpx.HTTPError as error:
                last[0] = error
                wanted.pop(name, None)  # whether it arrived is not known
            stop.wait(0.1)

    bringing = threading.Thread(target=bring)
    bringing.start()
    try:
        for number in range(KILLS):
            wait_until(
                lambda: any(one["status"] in ("reading", "embedding") for one in uploads.documents()), 60,
                f"somebody works; last answer {last}",
            )  # fmt: skip
            most = max(most, len(ingest_pids(uploads)))
            time.sleep(generator.uniform(0.0, 0.5))  # the moment is what is tried out
            victims = uploads.server.worker_pids()[:1] if number % 4 == 3 else ingest_pids(uploads)
            for pid in victims:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            served = open_served(uploads.root)
            sources = [passage.source for passage in served.passages() if passage.title == "Feeding shrimps"]
            assert len(sources) == len(set(sources)), "no document is there twice"
    finally:
        stop.set()
        bringing.join()
    assert most == 1
    wait_until(
        lambda: uploads.documents() != [] and all(one["status"] == "live" for one in uploads.documents()), 90,
        "all that came in is live",
    )  # fmt: skip
    served = {passage.source: passage.text for passage in open_served(uploads.root).passages()}
    for name, grams in wanted.items():
        assert served[name] == f"The shrimps get {grams} grams of food a day."
    assert len(generation.read(uploads.root).documents) == len(uploads.documents())


def test_what_is_added_and_removed_on_the_machine_is_listed_too(
    uploads: Uploads, azure: AzureEmulator, tmp_path: Path
) -> None:
    (tmp_path / "light.md").write_text("# Light\n\nThe lamp burns for ten hours.\n")
    where = ["--output", str(uploads.root)]
    env = {**azure.environment, "STATE_DIR": str(uploads.server.folder / "state")}
    assert run_module("indexer", "add", str(tmp_path / "light.md"), *where, env=env, cwd=tmp_path).returncode == 0
    [light] = uploads.documents()
    assert (light["name"], light["status"], light["passages"]) == ("light.md", "live", 1)
    identity = uploads.post(("feeding.md", TEXT.format(12).encode())).json()["documents"][0]["id"]
    uploads.settled(identity)
    (tmp_path / "feeding.md").write_text(TEXT.format(13))
    assert run_module("indexer", "add", str(tmp_path / "feeding.md"), *where, env=env, cwd=tmp_path).returncode == 0
    assert not (uploads.state / identity).exists(), "what was uploaded is replaced"
    assert {one["name"]: one["id"] for one in uploads.documents()}["feeding.md"] == identity
    uploads.everywhere("13 grams of food")
    again = uploads.request("PUT", "/documents/feeding.md", content=TEXT.format(12).encode()).json()["documents"][0]
    uploads.settled(again["id"])
    uploads.everywhere("12 grams of food")
    assert [one["name"] for one in uploads.documents()] == ["feeding.md", "light.md"]
    done = run_module("indexer", "remove", "feeding.md", *where, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in uploads.documents()] == ["light.md"]
    assert uploads.request("DELETE", f"/documents/{light['id']}").status_code == 204
    assert uploads.documents() == []


@pytest.mark.parametrize("shared", ["REDIS_URL=redis://127.0.0.1:6379", "DATABASE_URL=postgresql://x@127.0.0.1/x"])
def test_several_machines_are_refused_with_the_remedy(azure: AzureEmulator, tmp_path: Path, shared: str) -> None:
    name, _, value = shared.partition("=")
    env = {**azure.environment, "UPLOADS": "on", name: value}
    done = run_module("run_production.py", "--check", env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert "UPLOADS" in done.stdout
    assert "python -m indexer add on each" in done.stdout
