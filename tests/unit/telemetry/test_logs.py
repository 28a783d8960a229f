"""Log lines: one fact each, for machines or for people, without secrets and without line breaks of a visitor's."""

import json
import logging
import logging.config
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.telemetry.log_file import SharedFile
from rag.telemetry.logs import (
    JsonFormatter,
    Stage,
    TextFormatter,
    logging_config,
    note,
    request_fields,
    request_id,
    request_trace,
)  # fmt: skip
from tests.support.server import clean_environment

KEY = "s3cret-key-0123456789"


def record(message: str = "answered", level: int = logging.INFO, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("rag.chat.pipeline", level, __file__, 1, message, None, None)
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
        "level": "info", "logger": "rag.chat.pipeline", "message": "answered",
        "hits": 5, "degraded": None, "model_ms": 1.5,
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
    assert " chat.pipeline " in line


def test_a_text_line_names_time_level_logger_and_fields() -> None:
    line = TextFormatter().format(record("upstream call failed", logging.WARNING, attempt=1, delay_ms=180))
    assert line[13:].split() == ["warning", "chat.pipeline", "upstream", "call", "failed", "attempt=1", "delay_ms=180"]


def test_text_lines_are_columns(in_request: str) -> None:
    access = {"method": "POST", "route": "/chat", "status": 200, "duration_ms": 2512.34}
    lines = [
        TextFormatter().format(record("upstream call failed", logging.WARNING, attempt=1)),
        TextFormatter().format(record("request", **access, hits=5, degraded=None, note="two words")),
    ]
    assert lines[1].endswith('200 POST /chat                       2512.3 ms  hits=5 note="two words"  #trace-01')
    assert len({line.index(word) for line, word in zip(lines, ("upstream", "200"), strict=True)}) == 1
    assert len({line.index(word) for line, word in zip(lines, ("attempt", "hits"), strict=True)}) == 1


def test_colours_are_there_when_asked_for_and_change_no_word() -> None:
    made = record("upstream call failed", logging.WARNING, attempt=1)
    plain, coloured = TextFormatter().format(made), TextFormatter(colour=True).format(made)
    assert "\x1b[33m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


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
    logging.getLogger("rag.chat.pipeline").info("answered", extra={"hits": 5, "note": KEY})
    logging.getLogger("rag.chat.pipeline").debug("too quiet")
    logging.getLogger("httpx").info("a library chats")
    logging.getLogger("uvicorn.access").info("twice the same")
    logging.getLogger("aiohttp").warning("a library warns")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "answered" in said[0]
    assert "[secret]" in said[0]
    assert KEY not in said[0]
    assert "a library warns" in said[1]


def test_fields_are_noted_for_the_request_that_is_answered_and_lost_outside_of_one() -> None:
    note(hits=1)
    noted: dict[str, Any] = {}
    token = request_fields.set(noted)
    note(hits=5, search_ms=0.3)
    request_fields.reset(token)
    note(hits=7)
    assert noted == {"hits": 5, "search_ms": 0.3}


class Told:
    """A trace that keeps what it is told."""

    id = "trace"

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def stage(self, name: str) -> "Told":
        self.heard.append(name)
        return self

    def end(self, error: BaseException | None = None, **more: Any) -> None:
        self.heard.append(error)


def test_a_stage_is_noted_with_its_milliseconds_and_told_to_the_trace_even_if_it_breaks() -> None:
    noted: dict[str, Any] = {}
    told, broken = Told(), ValueError("broken")
    tokens = request_fields.set(noted), request_trace.set(told)  # type: ignore[arg-type]
    with Stage("embed") as embedding:
        assert told.heard == ["embed"]
    with pytest.raises(ValueError, match="broken"), Stage("model"):
        raise broken
    request_fields.reset(tokens[0])
    request_trace.reset(tokens[1])
    assert noted.keys() == {"embed_ms", "model_ms"}
    assert noted["embed_ms"] == round(embedding.seconds * 1000, 1)
    assert told.heard == ["embed", None, "model", broken]


def test_a_stage_outside_of_a_request_is_only_timed() -> None:
    with Stage("embed") as embedding:
        pass
    assert 0 < embedding.seconds < 1


# --- A log file ---

WRITER = """
import logging, sys
from pathlib import Path
from rag.telemetry.log_file import SharedFile

name, path, lines = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
logger = logging.getLogger("writer")
logger.addHandler(SharedFile(path=path, max_bytes=40_000, backups=20))
sys.stdin.readline()
for number in range(lines):
    logger.warning("%s %d %s", name, number, name * 60)
"""


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.parent.glob(f"{path.name}*") if file.suffix != ".lock")


def test_four_processes_that_turn_one_file_over_neither_lose_nor_tear_a_line(tmp_path: Path) -> None:
    path, count = tmp_path / "logs" / "server.log", 1500
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name, str(path), str(count)],
            stdin=subprocess.PIPE, env=clean_environment(tmp_path, {}),
        )
        for name in "abcd"
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    files = files_of(path)
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name} {number} {name * 60}" for name in "abcd" for number in range(count))
    # Turned over once each time: every full file is full, and none is more than that.
    assert len(files) > 9
    assert all(39_900 < file.stat().st_size <= 40_000 for file in files if file != path)


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[tuple[logging.Logger, Path]]:
    """A logger that writes 100 bytes a file and keeps two full ones."""
    logger, path = logging.getLogger("test.log_file"), tmp_path / "server.log"
    handler = SharedFile(path=path, max_bytes=100, backups=2)
    logger.addHandler(handler)
    yield logger, path
    logger.removeHandler(handler)
    handler.close()


def test_only_so_many_full_files_are_kept_and_the_newest_lines_are_in_the_first(
    writing: tuple[logging.Logger, Path],
) -> None:
    logger, path = writing
    for number in range(10):
        logger.warning("%02d %s", number, "x" * 56)  # one of these fills more than half of a file
    assert [(file.name, file.read_text()[:2]) for file in files_of(path)] == [
        ("server.log", "09"), ("server.log.1", "08"), ("server.log.2", "07"),
    ]  # fmt: skip


def test_a_line_longer_than_a_file_is_written_whole(writing: tuple[logging.Logger, Path]) -> None:
    logger, path = writing
    logger.warning("first")
    logger.warning("y" * 500)
    assert path.read_text() == "y" * 500 + "\n"
    assert path.with_name("server.log.1").read_text() == "first\n"


def test_a_file_that_was_moved_away_is_begun_anew(writing: tuple[logging.Logger, Path]) -> None:
    logger, path = writing
    logger.warning("before")
    path.rename(path.with_name("moved"))
    logger.warning("after")
    assert (path.with_name("moved").read_text(), path.read_text()) == ("before\n", "after\n")


def test_a_file_that_cannot_be_written_is_reported_once_and_used_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file where the folder should be")
    handler = SharedFile(path=folder / "server.log", max_bytes=100, backups=2)
    for _ in range(3):
        handler.handle(record("lost"))
    assert [line.message for line in caplog.records] == ["log file cannot be written"]
    folder.unlink()
    handler.handle(record("kept"))
    handler.close()
    assert (folder / "server.log").read_text() == "kept\n"
