"""The figures of one day, as the owner reads them."""

from typing import Any

from rag.chat.owner.question_log import COUNTED
from rag.settings import Settings
from rag.stores.protocols import Day


def of_day(day: Day, settings: Settings) -> dict[str, Any]:
    """Counts, shares 0 to 1, milliseconds and minutes; `cost` is None without prices."""
    figures = day.figures
    asked = figures.get("questions", 0)
    prompt, completion = figures.get("prompt_tokens", 0), figures.get("completion_tokens", 0)
    cost = None
    if settings.price_input is not None and settings.price_output is not None:
        cost = round((prompt * settings.price_input + completion * settings.price_output) / 1e6, 6)
    timed = figures.get("first_tokens", 0)
    answered = figures.get("answered", 0) - figures.get("uncited", 0)
    return {
        "day": day.day, "questions": asked, **{name: figures.get(name, 0) for name in COUNTED},
        "uncited": figures.get("uncited", 0), "cache_hits": figures.get("cache_hits", 0),
        "own_words": figures.get("own_words", 0),
        "answered_share": round(answered / asked, 4) if asked else None,
        "prompt_tokens": prompt, "completion_tokens": completion, "cost": cost,
        "first_token_ms": round(figures.get("first_token_ms", 0) / timed) if timed else None,
        "degraded_minutes": day.degraded_minutes,
    }  # fmt: skip
