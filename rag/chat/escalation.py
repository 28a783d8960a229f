"""When a person could help better: told by rules, from what became of a question and from what it asks for,
from thumbs, and from what the model says that answers it.

A rule must be cheap to be wrong about: the page only offers a way to a person then, it sends nobody there.
"""

import re
from typing import Literal

Reason = Literal["nothing_found", "asked", "unhappy", "outage"]

# A word of speaking near a word for a person, in the languages of the chat.
_ASKED = re.compile(
    "|".join(
        (
            r"\b(?:talk|speak|chat|connect|transfer)\b.{0,30}\b(?:human|person|agent|someone|somebody|representative)\b",
            r"\b(?:real|live|actual) (?:human|person|agent)\b|\bcontact (?:support|a person|a human|your team)\b",
            r"\b(?:menschen|mitarbeiter(?:in)?|person|jemandem)\b.{0,20}\b(?:sprechen|reden|verbinden|schreiben)\b",
            r"\b(?:sprechen|reden|verbinden)\b.{0,20}\bmit\b.{0,20}\b(?:menschen|mitarbeiter(?:in)?|person|jemandem)\b",
            r"\bparler\b.{0,20}\b(?:humain|personne|quelqu.un|conseiller|conseillère|agent)\b",
            r"\bhablar\b.{0,20}\b(?:persona|humano|alguien|agente)\b",
            r"\bparlare\b.{0,20}\b(?:persona|umano|qualcuno|operatore|operatrice)\b",
            r"\bfalar\b.{0,20}\b(?:pessoa|humano|alguém|atendente)\b",
            r"\b(?:praten|spreken)\b.{0,30}\b(?:mens|persoon|iemand|medewerker)\b",
            r"\b(?:mens|persoon|iemand|medewerker)\b.{0,20}\b(?:praten|spreken)\b",
            r"\b(?:porozmawiać|rozmawiać|rozmowa|połącz)\b.{0,20}\b(?:człowiekiem|osobą|konsultantem|kimś)\b",
            r"(?:担当者|人間|オペレーター|スタッフ).{0,10}(?:話|つない|繋い|代わ)",
            r"人工客服|转人工|真人",
            r"(?:التحدث|أتحدث|الكلام).{0,20}(?:شخص|إنسان|موظف)",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
LOOKED_AT_CHARS = 400
"""Of a question: who asks for a person says so at once, and the pattern's time grows with the text."""


UNHAPPY_FROM = 2
"""Thumbs down in one conversation, for its further answers to come with a way to a person."""


def reason_for(question: str, *, outcome: str, disliked: int = 0, judged: str = "") -> Reason | None:
    """Why a way to a person should be offered with this answer; None where there is no reason.

    `disliked` answers of the conversation got a thumb down; `judged` is what the model said of it, where it was asked.
    """
    if judged == "asked" or _ASKED.search(question[:LOOKED_AT_CHARS]):
        return "asked"
    if outcome == "nothing_found":
        return "nothing_found"
    if outcome == "quoted":
        return "outage"
    return "unhappy" if judged == "unhappy" or disliked >= UNHAPPY_FROM else None
