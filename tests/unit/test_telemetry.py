"""Log lines: one fact each, for machines or for people, without secrets and without line breaks of a visitor's."""

import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rag.telemetry import JsonFormatter, TextFormatter, logging_config, request_id

KEY = "s3cret-key-0123456789"


def record(message: str = "answered", level: int = logging.INFO, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("rag.chat", level, __file__, 1, message, None, None)
    vars(made).update(fields)
    return made


def as_json(made: logging.LogRecord, *secrets: str) -> dict[str, Any]:
    line = JsonFormatter(secrets=secrets).format(made)
    assert "\n" not in line
    parsed: dict[str, Any] = json.loads(line)
    return parsed


@pytest.fixture
def in_request() -> Iterator[str]:
    token = request_id.set("trace-0123")
    yield "trace-0123"
    request_id.reset(token)


def test_a_json_line_is_a_constant_sentence_and_fields() -> None:
    line = as_json(record(hits=5, degraded=None, model_ms=1.5))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info", "logger": "rag.chat", "message": "answered", "hits": 5, "degraded": None, "model_ms": 1.5,
    }  # fmt: skip


def test_a_line_carries_the_id_of_its_request(in_request: str) -> None:
    assert as_json(record())["request_id"] == in_request


def test_outside_a_request_there_is_no_id() -> None:
    assert "request_id" not in as_json(record())


@pytest.mark.parametrize(
    "value",
    [
        "lone \ud800 surrogate",
        2**70,
        {1, 2},
        object(),
        b"bytes",
        ValueError("x"),
        float("nan"),
        {"deep": [1, {"a": ()}]},
    ],
)
def test_no_value_keeps_a_line_from_being_written(value: object) -> None:
    assert "value" in as_json(record(value=value))
    assert "value=" in TextFormatter().format(record(value=value))


def test_secrets_are_blanked_wherever_they_stand() -> None:
    try:
        raise ValueError(f"refused: {KEY}")
    except ValueError:
        made = record(f"key {KEY}", url=f"https://x.example?key={KEY}", exc_info=sys.exc_info())
    for formatter in (JsonFormatter(secrets=(KEY,)), TextFormatter(secrets=(KEY,))):
        line = formatter.format(made)
        assert KEY not in line
        assert line.count("[secret]") >= 3


def test_an_empty_or_tiny_secret_blanks_nothing() -> None:
    assert as_json(record("an answer"), "", "a")["message"] == "an answer"


def test_an_exception_stands_inside_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = as_json(record("request broke", logging.ERROR, exc_info=sys.exc_info()))
    assert line["level"] == "error"
    assert "ValueError: broken" in line["exception"]


@pytest.mark.parametrize("evil", ["a\nb", "a\r\nERROR forged", "a\x1b[31mred", "a\u2028b", "a\x00b"])
def test_a_text_line_stays_one_line_whatever_a_field_holds(evil: str) -> None:
    line = TextFormatter().format(record(f"said {evil}", path=evil))
    assert line.isprintable()
    assert "rag.chat" in line


def test_a_text_line_names_time_level_logger_and_fields() -> None:
    line = TextFormatter().format(record("upstream call failed", logging.WARNING, attempt=1, delay_ms=180))
    assert line.endswith("warning rag.chat  upstream call failed  attempt=1 delay_ms=180")


@pytest.fixture
def restored_logging() -> Iterator[None]:
    names = [None, *logging_config("info", "json")["loggers"]]
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers
    for logger, level in before:
        logger.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_the_configuration_sends_our_lines_to_stdout_and_keeps_libraries_quiet(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    logging.config.dictConfig(logging_config("info", log_format, (KEY,)))
    logging.getLogger("rag.chat").info("answered", extra={"hits": 5, "note": KEY})
    logging.getLogger("rag.chat").debug("too quiet")
    logging.getLogger("httpx").info("a library chats")
    logging.getLogger("uvicorn.access").info("twice the same")
    logging.getLogger("aiohttp").warning("a library warns")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "answered" in said[0]
    assert "[secret]" in said[0]
    assert KEY not in said[0]
    assert "a library warns" in said[1]
