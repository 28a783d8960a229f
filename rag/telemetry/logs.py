"""What happened: one log line a fact, as JSON for machines or text for people, each with its request's id; and stages.

Knows nothing of the product: fields come from whoever logs. Visitors' words are never logged at info level. Knows of
traces only what is told to one: `rag.telemetry.tracing` has those that are sent.
"""

import json
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import orjson

from rag.telemetry.log_file import SharedFile

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request being answered, for every line that is logged meanwhile."""

request_fields: ContextVar[dict[str, Any] | None] = ContextVar("request_fields", default=None)
"""What is collected for the one line that a request gets when it ends."""


def note(**fields: Any) -> None:
    """Put fields into the line of the request being answered; outside of one they are lost."""
    noted = request_fields.get()
    if noted is not None:
        noted.update(fields)


class TracedStage(Protocol):
    """A stage of a request that is traced."""

    def end(self, error: BaseException | None) -> None:
        """With what the stage raised."""


class Trace(Protocol):
    """What a request's trace is told, by whoever does something for it. Its stages follow each other."""

    @property
    def id(self) -> str:
        """32 hexadecimal digits; empty where OpenTelemetry is switched off."""

    def stage(self, name: str) -> TracedStage: ...

    def call(self, upstream: str, endpoint: str) -> AbstractContextManager[None]:
        """Encloses one call to a model's endpoint, as `calls.CallObserver` has it."""

    def happened(self, what: str) -> None: ...

    def used(self, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Of the call that the running stage waits for."""

    def end(self, *, route: str, status: int, noted: Mapping[str, Any]) -> None:
        """`noted` are the fields of the request's log line."""


class Tracer(Protocol):
    """What begins traces."""

    def begin(self, *, method: str, scheme: str, traceparent: str | None) -> Trace: ...


request_trace: ContextVar[Trace | None] = ContextVar("request_trace", default=None)
"""The trace of the request being answered, where requests are traced."""


class Stage:
    """A part of a request: what it took is noted as `<name>_ms`, and is a span of the request's trace.

    Sets no context variable, so that it may enclose what a generator yields.
    """

    __slots__ = ("_began_s", "_name", "_traced", "seconds")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> "Stage":
        trace = request_trace.get()
        self._traced = None if trace is None else trace.stage(self._name)
        self._began_s = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._began_s
        noted = request_fields.get()
        if noted is not None:
            noted[f"{self._name}_ms"] = round(self.seconds * 1000, 1)
        if self._traced is not None:
            self._traced.end(error)


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
    """`12:00:00.120 warning  upstream       upstream call failed, trying again            attempt=1  #4f2a91c0`

    In columns: when, how bad, who says so, what happened, its fields, in which request. The line of a request says what
    was asked and what came of it: `12:00:00.120 info     access_log     200 POST /chat  2512.0 ms   hits=5  #4f2a91c0`.
    """

    def __init__(self, *, secrets: tuple[str, ...] = (), colour: bool = False) -> None:
        super().__init__(secrets=secrets)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone()
        fields, message = self.fields(record), _one_line(record.getMessage())
        if fields.keys() >= _OF_REQUESTS:
            message = f"{fields['status']} {fields['method']} {fields['route']}"
            message = f"{_one_line(message):{MESSAGE_WIDTH - 12}}{fields['duration_ms']:9.1f} ms"
            fields = {name: value for name, value in fields.items() if name not in _OF_REQUESTS}
        said = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items() if value is not None)
        parts = [
            self._painted("2", f"{moment:%H:%M:%S}.{int(record.msecs):03d}"),
            self._painted(_PAINT.get(record.levelno, "0"), f"{record.levelname.lower():8}"),
            self._painted("2", f"{record.name.removeprefix('rag.'):15}"),
            f"{message:{MESSAGE_WIDTH}}  {said}" if said else message,
            self._painted("2", f" #{request_id.get()[:8]}") if request_id.get() else "",
        ]
        line = " ".join(filter(None, parts))
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self.blank(line)

    def _painted(self, paint: str, text: str) -> str:
        return f"\x1b[{paint}m{text}\x1b[0m" if self._colour else text


MESSAGE_WIDTH = 46
"""Where fields begin; most sentences are shorter."""
_OF_REQUESTS = {"method", "route", "status", "duration_ms"}
_PAINT = {logging.DEBUG: "2", logging.INFO: "32", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
"""Of levels, as ANSI attributes."""


def _quoted(value: object) -> str:
    text = _one_line(value)
    return f'"{text}"' if " " in text else text


def _one_line(value: object) -> str:
    # A line break in a field would let a visitor write log lines of their own.
    text = str(value)
    return text if text.isprintable() else ascii(text)


def logging_config(
    level: str,
    log_format: str,
    secrets: tuple[str, ...] = (),
    *,
    colour: bool = False,
    file: Path | None = None,
    max_bytes: int = 100_000_000,
    backups: int = 10,
) -> dict[str, Any]:
    """A `logging.config.dictConfig` for every process of the server: all lines to stdout, in one form.

    `colour` paints the text form. With `file` they go there as well, unpainted.
    """
    json_lines = {"()": JsonFormatter, "secrets": secrets}
    text_lines = {"()": TextFormatter, "secrets": secrets}
    stdout = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "stdout"}
    in_file = {"()": SharedFile, "path": file, "max_bytes": max_bytes, "backups": backups, "formatter": "file"}
    quiet = {"level": "WARNING", "propagate": True, "handlers": []}
    ours = {"level": level.upper(), "propagate": True, "handlers": []}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "stdout": json_lines if log_format == "json" else {**text_lines, "colour": colour},
            "file": json_lines if log_format == "json" else text_lines,
        },
        "handlers": {"stdout": stdout} | ({"file": in_file} if file else {}),
        "root": {"level": "WARNING", "handlers": ["stdout", *(["file"] if file else [])]},
        "loggers": {
            "rag": ours,
            "rag_server": ours,
            "indexer": ours,
            "gunicorn.error": ours,
            "gunicorn.access": quiet,
            "uvicorn.error": quiet,
            "uvicorn.access": quiet,
            # Says in its own words what is logged in ours.
            "azure": {"level": "CRITICAL", "propagate": True, "handlers": []},
            "slowapi": {"level": "CRITICAL", "propagate": True, "handlers": []},
        },
    }
