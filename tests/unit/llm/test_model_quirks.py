"""What a refusal says, whose fault it is, and how the next request is spelled because of it."""

import orjson
import pytest

from rag.llm import model_quirks

BODY = {"messages": [], "temperature": 0.1, "max_tokens": 500}


def learned(
    options: model_quirks.RequestOptions, param: str, code: str = "unsupported_parameter"
) -> dict[str, object] | None:
    return options.learn(BODY, sent=options.of(BODY), code=code, param=param)


def test_a_request_is_sent_as_it_is_until_something_is_refused() -> None:
    assert model_quirks.RequestOptions().of(BODY) is BODY


def test_a_refused_limit_goes_by_its_new_name_and_at_once_without_what_may_be_refused_next() -> None:
    options = model_quirks.RequestOptions()
    assert learned(options, "max_tokens") == {"messages": [], "max_completion_tokens": 500}
    assert options.of(BODY) == {"messages": [], "temperature": 0.1, "max_completion_tokens": 500}


def test_a_refused_temperature_is_left_out_from_then_on() -> None:
    options = model_quirks.RequestOptions()
    assert learned(options, "temperature", "unsupported_value") == {"messages": [], "max_tokens": 500}
    assert options.of(BODY) == {"messages": [], "max_tokens": 500}


def test_a_refusal_without_a_code_of_its_own_teaches_as_well() -> None:
    options = model_quirks.RequestOptions()
    body = orjson.dumps({"error": {"type": "invalid_request_error", "param": "temperature", "code": None}})
    code, param = model_quirks.read(body)
    assert learned(options, param, code) is not None


@pytest.mark.parametrize(
    ("param", "code"),
    [("messages", "unsupported_value"), ("max_tokens", "invalid_value"), ("", "unsupported_parameter"),
     ("max_completion_tokens", "unsupported_parameter"), ("temperature", "decimal_above_max_value")],
)  # fmt: skip
def test_what_other_options_would_not_mend_teaches_nothing(param: str, code: str) -> None:
    options = model_quirks.RequestOptions()
    assert learned(options, param, code) is None
    assert options.of(BODY) is BODY


def test_two_who_were_refused_at_the_same_moment_both_learn_and_nobody_twice() -> None:
    options = model_quirks.RequestOptions()
    first = options.learn(BODY, sent=BODY, code="unsupported_parameter", param="max_tokens")
    assert options.learn(BODY, sent=BODY, code="unsupported_parameter", param="max_tokens") == first
    assert first is not None
    assert options.learn(BODY, sent=first, code="unsupported_parameter", param="max_tokens") is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":"no"}', b'{"error":null}', b"\xff"])
def test_a_refusal_in_an_unknown_form_names_nothing(body: bytes) -> None:
    assert model_quirks.read(body) == ("", "")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "context_length_exceeded", "message": "too long", "param": "messages"}},
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        {"error": {"type": "BadRequestError", "code": 400, "message": "The maximum model length of 4096 was exceeded"}},
        {"error": {"type": "exceed_context_size_error", "code": 400, "message": "it does not fit"}},
        {"error": {"type": "invalid_request_error", "message": "prompt is too long: 9000 tokens > 8000 maximum"}},
        {"error": "the prompt exceeds the context window"},
    ],
)
def test_a_text_too_long_for_the_model_has_one_code_whoever_refuses_it(body: object) -> None:
    assert model_quirks.read(orjson.dumps(body))[0] == model_quirks.TOO_LONG


def test_what_only_speaks_of_a_context_is_no_such_refusal() -> None:
    body = {"error": {"code": "invalid_value", "message": "The context of this image is not allowed.", "param": "x"}}
    assert model_quirks.read(orjson.dumps(body)) == ("invalid_value", "x")


@pytest.mark.parametrize("param", [["max_tokens"], 7, "two words", "a" * 50, "line\nbreak"])
def test_only_a_word_is_taken_for_a_parameter(param: object) -> None:
    assert model_quirks.read(orjson.dumps({"error": {"code": "c", "param": param}})) == ("c", "")


def test_a_question_that_is_too_long_says_nothing_of_the_endpoint_and_a_foreign_parameter_does() -> None:
    assert not model_quirks.is_of_endpoint(400, "context_length_exceeded")
    assert not model_quirks.is_of_endpoint(400, "")
    assert not model_quirks.is_of_endpoint(413, "")
    assert model_quirks.is_of_endpoint(400, "unsupported_parameter")
    assert model_quirks.is_of_endpoint(400, "DeploymentNotFound")
    assert model_quirks.is_of_endpoint(404, "")
