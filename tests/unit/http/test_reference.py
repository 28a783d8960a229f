"""The API's description: names for generated clients, groups for readers, and examples that are true to the schema."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rag.http import reference
from rag.settings import Settings
from rag_server import create_app

DOCUMENT: dict[str, Any] = create_app(Settings(demo=True, uploads="on")).openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation for path, at in DOCUMENT["paths"].items() for method, operation in at.items()
}
EXAMPLES = [
    (name, part, media.get("schema", {}), media["example"])
    for name, operation in OPERATIONS.items()
    for part, content in (
        ("request", operation.get("requestBody", {}).get("content", {})),
        ("response", operation["responses"].get("200", {}).get("content", {})),
    )
    for media in content.values()
    if "example" in media
]


def test_every_operation_has_a_name_for_generated_clients_and_a_group_for_readers() -> None:
    groups = {tag["name"] for tag in DOCUMENT["tags"]}
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert [name for name in names if not name.isidentifier() or "_" in name] == []
    assert len(set(names)) == len(names)
    assert {name: operation.get("tags") for name, operation in OPERATIONS.items() if not operation.get("tags")} == {}
    assert {tag for operation in OPERATIONS.values() for tag in operation["tags"]} == groups


def test_the_reference_names_no_operation_that_is_not_there() -> None:
    known = json.loads(reference._FILE.read_text("utf-8"))["operations"]
    assert known.keys() - OPERATIONS.keys() == set()


@pytest.mark.parametrize(("name", "part", "schema", "example"), EXAMPLES, ids=[f"{n} {p}" for n, p, *_ in EXAMPLES])
def test_an_example_fits_the_schema_it_stands_beside(name: str, part: str, schema: Any, example: Any) -> None:
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(example)


def test_every_error_is_described_in_the_form_that_it_has() -> None:
    assert "HTTPValidationError" not in json.dumps(DOCUMENT)
