"""What happened: one log line a fact, as JSON for machines or text for people, each with its request's id.

Knows nothing of the product: fields come from whoever logs. Visitors' words are never logged at info level.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request being answered, for every line that is logged meanwhile."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class _Formatter(logging.Formatter):
    """Shared by both forms: the fields of a record, with secrets blanked."""

    def __init__(self, *, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secret for secret in secrets if len(secret) >= 4)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        return {name: value for name, value in vars(record).items() if name not in _STANDARD}

    def blank(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, "[secret]")
        return line


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        line |= self.fields(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            text = orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8")
        except TypeError:
            # Lone surrogates (a file's undecodable name) and numbers beyond 64 bits: rare, and still to be told.
            text = json.dumps(line, default=str)
        return self.blank(text)


class TextFormatter(_Formatter):
    """`12:00:00 warning rag.upstream  upstream call failed, trying again  attempt=1 delay_ms=180`"""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        fields = " ".join(f"{name}={_one_line(value)}" for name, value in self.fields(record).items())
        line = f"{time:%H:%M:%S} {record.levelname.lower():7} {record.name}  {_one_line(record.getMessage())}"
        line += f"  {fields}" if fields else ""
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self.blank(line)


def _one_line(value: object) -> str:
    # A line break in a field would let a visitor write log lines of their own.
    text = str(value)
    return text if text.isprintable() else ascii(text)


def logging_config(level: str, log_format: str, secrets: tuple[str, ...] = ()) -> dict[str, Any]:
    """A `logging.config.dictConfig` for every process of the server: all lines to stdout, in one form."""
    formatter = JsonFormatter if log_format == "json" else TextFormatter
    quiet = {"level": "WARNING", "propagate": True, "handlers": []}
    ours = {"level": level.upper(), "propagate": True, "handlers": []}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter, "secrets": secrets}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["stdout"]},
        "loggers": {
            "rag": ours,
            "rag_server": ours,
            "indexer": ours,
            "gunicorn.error": ours,
            "gunicorn.access": quiet,
            "uvicorn.error": quiet,
            "uvicorn.access": quiet,
            "slowapi": {"level": "CRITICAL", "propagate": True, "handlers": []},
        },
    }
