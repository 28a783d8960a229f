"""The sentences of one site, in the visitor's language: what is said beside, or in place of, a model's answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rag.chat.texts import DEFAULT_LANGUAGE, Texts, load_texts
from rag.chat.wording import language
from rag.chat.wording.small_talk import SmallTalk, small_talk
from rag.settings import Settings
from rag.types import Hit

OFFERED = 3
"""Pages, or questions, that an answer without sources offers instead."""
OUTAGE = "answer_outage"
"""The code of what opens an answer while the model cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Speaks for one site. `person_url` and `person_form` are the ways to a person that the owner has set."""

    texts: Texts
    site_name: str
    suggested_questions: Sequence[str] = ()
    person_url: str = ""
    person_form: bool = False

    def __post_init__(self) -> None:
        small_talk("")

    @classmethod
    def of(cls, settings: Settings) -> "Voice":
        return cls(
            texts=load_texts(settings.texts_file), site_name=settings.site_name,
            suggested_questions=settings.suggested_questions, person_url=settings.escalation_url,
            person_form=settings.takes_handoffs,
        )  # fmt: skip

    def language(self, texts: Iterable[str], *, asked_for: str) -> str:
        """Of a visitor who wrote `texts`, newest first, and whose browser names a language: see `language`."""
        return language.spoken(texts, asked_for=asked_for, languages=self.texts)

    def small_talk(self, message: str, *, asked_for: str) -> SmallTalk | None:
        """What `message` is if it needs no page to be answered."""
        return small_talk(message, prefer=asked_for)

    def reply(self, talk: SmallTalk) -> str:
        """What is said to it."""
        code = f"talk_{talk.kind}"
        if talk.kind == "person" and not self.person_url:
            code = "talk_person_form" if self.person_form else "talk_person_none"
        said = self.say(code, talk.language, url=self.person_url)
        offers = talk.kind in ("greeting", "about")
        return "\n\n".join([said, *(self._questions(talk.language) if offers else [])])

    def say(self, code: str, language: str, **values: str) -> str:
        """One sentence, its parameters filled in."""
        sentence = self.sentences(language)[code]
        # Not `str.format`: an owner's sentence may hold braces of its own.
        for name, value in {"site": self.site_name, **values}.items():
            sentence = sentence.replace(f"{{{name}}}", value)
        return sentence

    def sentences(self, language: str) -> Mapping[str, str]:
        return self.texts.get(language, self.texts[DEFAULT_LANGUAGE])

    def nothing_found(self, language: str, nearest: Sequence[Hit]) -> str:
        """The answer where no passage fits, in Markdown, with what the site has instead: pages nearest to the question,
        and the site's suggested questions.
        """
        pages = {hit.passage.url: hit.passage.title or hit.passage.source for hit in reversed(nearest)}
        links = [f"- [{_label(title)}]({_target(url)})" for url, title in reversed(pages.items())][:OFFERED]
        parts = [self.say("answer_nothing", language)]
        parts += [self.say("answer_nearest", language) + "\n\n" + "\n".join(links)] if links else []
        return "\n\n".join([*parts, *self._questions(language)])

    def _questions(self, language: str) -> list[str]:
        questions = [f"- {question}" for question in self.suggested_questions[:OFFERED]]
        return [self.say("answer_questions", language) + "\n\n" + "\n".join(questions)] if questions else []

    def without_outage(self, answer: str) -> str:
        """An answer without the sentence that the model cannot be reached, in whatever language it opens."""
        for sentences in self.texts.values():
            answer = answer.removeprefix(f"{sentences[OUTAGE]}\n\n")
        return answer


def _label(title: str) -> str:
    return title.replace("[", "(").replace("]", ")")


def _target(url: str) -> str:
    return url.replace(" ", "%20").replace("(", "%28").replace(")", "%29")
