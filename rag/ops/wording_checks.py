"""What must be true before the start of the owner's words: the model's instructions, and the texts of the chat."""

from collections.abc import Iterator

from rag.chat.texts import load_texts
from rag.errors import ConfigError
from rag.ops.access_checks import Found
from rag.settings import Settings


def findings(settings: Settings) -> Iterator[Found]:
    """Nothing for a server that has none of these files."""
    yield from _system_prompt(settings)
    yield from _texts(settings)


def _system_prompt(settings: Settings) -> Iterator[Found]:
    path = settings.system_prompt_file
    if path is None:
        return
    try:
        length = len(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        yield "fault", "prompt", f"{path} cannot be read: {reason}", "mend SYSTEM_PROMPT_FILE or the file"
        return
    if length:
        yield "ok", "prompt", f"{path}, {length} characters", ""
    else:
        yield "fault", "prompt", f"{path} is empty", "write the instructions, or unset SYSTEM_PROMPT_FILE"


def _texts(settings: Settings) -> Iterator[Found]:
    if settings.texts_file is None:
        return
    try:
        load_texts(settings.texts_file)
    except ConfigError as error:
        for fault in error.faults:
            yield "fault", "texts", fault, "mend TEXTS_FILE or the file"
    else:
        yield "ok", "texts", str(settings.texts_file), ""
