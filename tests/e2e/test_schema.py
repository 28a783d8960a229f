"""The server against its own description: every answer to hundreds of made-up requests is one that it announces."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.conftest import ADMIN_API_KEY
from tests.support.schema_fuzz import fuzz
from tests.support.server import RagServer

RANDOM_CASES = 4
"""For each operation, beside those made by rule; `make fuzz` runs many more."""
FEWEST_CASES = 300
OPENAI = "/v1/"
"""Errors below it have OpenAI's form."""


@pytest.fixture(scope="module")
def document(server: RagServer) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.base_url}/openapi.json", trust_env=False).json()
    return found


def test_hundreds_of_made_up_requests_get_only_announced_answers_and_kill_no_worker(
    server: RagServer, document: dict[str, Any], tmp_path: Path
) -> None:
    workers = server.worker_pids()
    found = fuzz(server.base_url, admin_key=ADMIN_API_KEY, max_examples=RANDOM_CASES, folder=tmp_path)
    assert found.exit_code == 0, found.output
    assert found.operations == sum(len(operations) for operations in document["paths"].values())
    assert found.cases >= FEWEST_CASES
    assert server.worker_pids() == workers
    assert "Traceback" not in server.output


def test_every_operation_announces_each_error_that_comes_before_its_route(document: dict[str, Any]) -> None:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            if path.startswith(OPENAI):
                assert {"4XX", "5XX"} <= answers.keys()
                continue
            expected = {"400", "431", "500", "503"} | ({"413", "422"} if method in ("post", "delete") else set())
            assert expected <= answers.keys(), (method, path)
            for status in expected - ({"503"} if path == "/ready" else set()):
                assert answers[status]["content"] == problem
    assert "HTTPValidationError" not in json.dumps(document)


def test_limited_operations_announce_429_and_guarded_ones_their_key(document: dict[str, Any]) -> None:
    for method, path in (("post", "/chat"), ("post", "/chat/stream"), ("post", "/search"), ("get", "/health")):
        assert "429" in document["paths"][path][method]["responses"]
    guarded = [
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation.get("security") == [{"credential": []}]
    ]
    assert {("get", "/sessions/stats"), ("get", "/feedback")} <= set(guarded)
    assert document["components"]["securitySchemes"] == {"credential": {"type": "http", "scheme": "bearer"}}


def test_the_limit_of_a_question_stands_in_the_document(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["ChatRequest"]["properties"]["message"]["maxLength"] == 4000
    assert schemas["SearchRequest"]["properties"]["query"]["maxLength"] == 4000


def test_the_events_of_a_stream_are_those_that_the_document_describes(
    server: RagServer, document: dict[str, Any]
) -> None:
    described = document["paths"]["/chat/stream"]["post"]["responses"]["200"]["content"]["text/event-stream"][
        "x-events"
    ]
    question = {"message": "How long can goods be returned?"}
    answer = httpx.post(f"{server.base_url}/chat/stream", json=question, timeout=30, trust_env=False)
    seen = set()
    for block in answer.text.strip().split("\n\n"):
        event, data = (line.partition(": ")[2] for line in block.split("\n")[:2])
        Draft202012Validator({**described[event], "components": document["components"]}).validate(json.loads(data))
        seen.add(event)
    assert {"session", "sources", "delta", "done"} <= seen
