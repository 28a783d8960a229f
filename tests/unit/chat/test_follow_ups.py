"""What a follow-up searches for: the right page more often, and a question that stands alone as it is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.build import build
from indexer.metrics import mrr_at_10
from indexer.reading import finding
from indexer.reading.files import read_all
from rag.chat.follow_ups import QUERY_CHARS, Rewriter, leans, search_query
from rag.chat.texts import load_texts
from rag.deadline import Deadline
from rag.errors import ContentFiltered, UpstreamError, UpstreamTimeout
from rag.llm.embedded import LocalEmbedder
from rag.search.backends.files import FileBackend
from rag.search.hybrid import Build, open_build
from rag.types import Completion, Message, Prompt
from tests.unit.chat.conversations_with_follow_ups import FASTAPI_DOCS, SMALL_SITE, STAND_ALONE, Conversation


def said(*questions: str) -> list[Message]:
    return [turn for question in questions for turn in (Message("user", question), Message("assistant", "Because."))]


def indexed(site: Path, root: Path) -> Build:
    documents = read_all(finding.find([site]).files, site_url="")
    asyncio.run(
        build(documents, backend=FileBackend(root), embedder=LocalEmbedder(), clean=False, progress=lambda *_: None)
    )
    return open_build(root)


def mean_mrr(site: Build, conversations: tuple[Conversation, ...], query: Callable[[str, list[Message]], str]) -> float:
    found = []
    for *before, last in (conversation.asked for conversation in conversations):
        wanted = query(last, said(*before))
        vector = asyncio.run(LocalEmbedder().embed([wanted]))[0]
        found.append([hit.passage.source for hit in site.search(wanted, vector=vector, k=10)])
    rights = [mrr_at_10(pages, {talk.page}) for pages, talk in zip(found, conversations, strict=True)]
    return sum(rights) / len(rights)


def test_follow_ups_on_the_small_site_find_their_page(small_site: Path, tmp_path: Path) -> None:
    site = indexed(small_site, tmp_path)
    assert mean_mrr(site, SMALL_SITE, search_query) == 1.0
    # Measured .74: without the conversation a quarter of them lead elsewhere.
    assert mean_mrr(site, SMALL_SITE, lambda question, _: question) < 0.85


def test_follow_ups_on_real_documentation_find_their_page_more_often(corpora: Path, tmp_path: Path) -> None:
    site = indexed(corpora / "fastapi_docs", tmp_path)
    # Measured .82 with the conversation, .41 without.
    assert mean_mrr(site, FASTAPI_DOCS, search_query) >= 0.75
    assert mean_mrr(site, FASTAPI_DOCS, lambda question, _: question) < 0.55


@pytest.mark.parametrize(("before", "question"), STAND_ALONE)
def test_a_question_that_stands_alone_is_searched_as_it_is(before: str, question: str) -> None:
    assert search_query(question, said(before)) == question


@pytest.mark.parametrize(
    "question",
    ["Why?", "How often?", "And for schools?", "What about the probes?", "Details?", "Is it waterproof?", "Und warum?",
     "Wie oft?", "Was kostet das?", "Gilt sie auch dort?", "那个呢？", "それはいくら？", "¿Y eso?", "Et ceux-là ?"],
)  # fmt: skip
def test_a_remainder_of_a_question_leans(question: str) -> None:
    assert leans(question)


def test_a_greeting_in_an_empty_conversation_stays_what_it_is() -> None:
    assert search_query("Why?", []) == "Why?"
    assert search_query("Why?", [Message("assistant", "Welcome! Ask me about pumps.")]) == "Why?"


class FakeModel:
    def __init__(self, answer: str | Exception | Completion) -> None:
        self.answer = answer
        self.prompts: list[Prompt] = []
        self.given_s: list[float] = []

    async def complete(self, prompt: Prompt, *, deadline: Deadline) -> Completion:
        self.prompts.append(prompt)
        self.given_s.append(deadline.remaining_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, Completion):
            return self.answer
        return Completion(text=self.answer, prompt_tokens=1, completion_tokens=1)


def rewritten(model: FakeModel, question: str, history: list[Message]) -> str:
    return asyncio.run(Rewriter(model=model).query(question, history, deadline=Deadline(20.0)))


def test_the_model_words_the_query_within_its_share_of_the_time() -> None:
    model = FakeModel(' "warranty of the probes"\n')
    assert rewritten(model, "And theirs?", said("How long does the warranty last?")) == "warranty of the probes"
    assert 0 < model.given_s[0] <= 5.0
    asked = model.prompts[0].messages[-1]["content"]
    assert "How long does the warranty last?" in asked
    assert "And theirs?" in asked
    assert "warranty" not in model.prompts[0].messages[0]["content"]


def test_the_first_question_costs_no_call() -> None:
    model = FakeModel("anything")
    assert rewritten(model, "How long?", []) == "How long?"
    assert rewritten(model, "How long?", [Message("assistant", "Welcome!")]) == "How long?"
    assert model.prompts == []


def test_the_chats_own_request_to_explain_is_searched_with_what_is_marked_in_every_language() -> None:
    for language, sentences in load_texts(None).items():
        query = search_query(sentences["explain"], [], selection="A two-point calibration")
        assert query.startswith("A two-point calibration\n"), language
    for stands_alone in ("How long does the warranty of probes last?", "保修期是多久时间多少个月"):
        assert search_query(stands_alone, [], selection="A two-point calibration") == stands_alone


@pytest.mark.parametrize(
    "answer",
    [UpstreamError("down"), UpstreamTimeout("slow"), ContentFiltered("refused"), "   ", '""', "It lasts.\nThree years.",
     "x" * (QUERY_CHARS + 1), Completion("warranty of the", 1, 3, cut=True)],
)  # fmt: skip
def test_without_a_usable_query_the_rules_decide(answer: str | Exception | Completion) -> None:
    history = said("How long does the warranty last?")
    assert rewritten(FakeModel(answer), "And theirs?", history) == search_query("And theirs?", history)
