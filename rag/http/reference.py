"""What the API's description says beside what FastAPI derives: names of operations, groups, examples, the events.

The words stand in `reference.json`. Generated clients name their methods after the operations' ids.
"""

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("reference.json")

EVENTS = {
    "session": {"type": "object", "required": ["session_id"], "properties": {"session_id": {"type": "string"}}},
    "sources": {"type": "array", "items": {"$ref": "#/components/schemas/Source"}},
    "delta": {
        "type": "object",
        "required": ["text", "cited"],
        "properties": {
            "text": {"type": "string", "description": "the next piece of the answer"},
            "cited": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "[n] in the text is the source at place cited[n - 1] of the sources",
            },
        },
    },
    "done": {"$ref": "#/components/schemas/StreamDone"},
    "error": {"$ref": "#/components/schemas/Problem"},
}
"""The schema of each event's data in `POST /chat/stream`, by the event's name."""


def complete(document: dict[str, Any]) -> None:
    """Write ids, groups, summaries, examples and the stream's events into the OpenAPI document."""
    known = json.loads(_FILE.read_text("utf-8"))
    document["tags"] = known["tags"]
    order = [name.split(" ")[1] for name in known["operations"]]
    document["paths"] = dict(sorted(document["paths"].items(), key=lambda one: [*order, one[0]].index(one[0])))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            about = known["operations"].get(f"{method.upper()} {path}", {})
            operation["operationId"] = about.get("id", operation["operationId"])
            if "tag" in about:
                operation["tags"] = [about["tag"]]
            operation.update({key: about[key] for key in ("summary", "description") if key in about})
            if "request" in about:
                for media in operation["requestBody"]["content"].values():
                    media["example"] = about["request"]
            if "response" in about:
                for media in operation["responses"]["200"]["content"].values():
                    media["example"] = about["response"]
    answer = document["components"]["schemas"]["ChatResponse"]
    fields = {name: schema for name, schema in answer["properties"].items() if name != "session_id"}
    required = [name for name in answer["required"] if name != "session_id"]
    document["components"]["schemas"]["StreamDone"] = {"type": "object", "properties": fields, "required": required}
    stream = document["paths"]["/chat/stream"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    # OpenAPI 3.1 has no word for events; the extension names each one's schema.
    stream["x-events"] = EVENTS
