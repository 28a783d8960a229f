"""Every sentence the chat shows to a visitor, by language and code. Knows no request, and not where it is shown.

`texts.json` holds ours. A file of the owner's, of the same form, may replace any of them: `{"de": {"hint": "…"}}`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from rag.errors import ConfigError

Texts = Mapping[str, Mapping[str, str]]
"""Language (`de`) -> code (`rate_limited`) -> sentence; `{name}` in it is a parameter."""

DEFAULT_LANGUAGE = "en"
_PARAMETER = re.compile(r"\{(\w+)\}")


def load_texts(file: Path | None) -> Texts:
    """Ours, with the owner's in their places. Raises `ConfigError` that names every fault of `file`."""
    texts: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("texts.json").read_text("utf-8"))
    if file is None:
        return texts
    try:
        given = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError([f"TEXTS_FILE: {file} cannot be read: {error.strerror}"]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"TEXTS_FILE: {file} is not JSON: {error}"]) from None
    faults = [f"TEXTS_FILE: {file}: {fault}" for fault in _faults(given, texts)]
    if faults:
        raise ConfigError(faults)
    for language, sentences in given.items():
        texts[language] |= sentences
    return texts


def _faults(given: object, texts: Texts) -> list[str]:
    if not isinstance(given, dict):
        return ['an object such as {"de": {"hint": "…"}} is wanted']
    faults = [
        f"{language}: not one of {', '.join(texts)}" if language not in texts else f"{language}: not an object"
        for language, sentences in given.items()
        if language not in texts or not isinstance(sentences, dict)
    ]
    ours = texts[DEFAULT_LANGUAGE]
    for language, sentences in given.items():
        for code, sentence in sentences.items() if isinstance(sentences, dict) else ():
            where = f"{language}.{code}"
            if code not in ours:
                faults.append(f"{where}: unknown; the codes stand in rag/chat/texts.json")
            elif not isinstance(sentence, str) or not sentence.strip():
                faults.append(f"{where}: a sentence is wanted")
            else:
                wanted, found = (set(_PARAMETER.findall(text)) for text in (ours[code], sentence))
                faults += [f"{where}: {{{name}}} is missing" for name in sorted(wanted - found)]
                faults += [f"{where}: {{{name}}} is unknown" for name in sorted(found - wanted)]
    return faults
