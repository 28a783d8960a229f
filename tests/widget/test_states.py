"""What can go wrong between a page and its server, and what the chat says and does then."""

from tests.widget.conftest import InBrowser


def test_stop_keeps_what_was_written_and_tells_the_server(in_browser: InBrowser) -> None:
    in_browser()


def test_too_many_questions_show_a_countdown_and_then_go_on(in_browser: InBrowser) -> None:
    in_browser()


def test_an_error_before_the_answer_says_what_the_server_said(in_browser: InBrowser) -> None:
    in_browser()


def test_an_error_inside_the_answer_keeps_what_came_before_it(in_browser: InBrowser) -> None:
    in_browser()


def test_a_connection_that_breaks_off_is_told_from_a_complete_answer(in_browser: InBrowser) -> None:
    in_browser()


def test_a_refused_question_is_handed_back_to_be_put_otherwise(in_browser: InBrowser) -> None:
    in_browser()


def test_a_server_that_is_down_and_comes_back_answers_on_retry(in_browser: InBrowser) -> None:
    in_browser()


def test_an_offline_question_is_sent_when_the_connection_is_back(in_browser: InBrowser) -> None:
    in_browser()


def test_further_quotes_are_folded_below_the_best_one(in_browser: InBrowser) -> None:
    in_browser()


def test_a_degraded_answer_says_what_was_missing(in_browser: InBrowser) -> None:
    in_browser()


def test_messages_that_cannot_be_loaded_are_not_passed_over_in_silence(in_browser: InBrowser) -> None:
    in_browser()


def test_without_storage_the_chat_works_and_forgets(in_browser: InBrowser) -> None:
    in_browser()


def test_an_answer_is_read_aloud_once_and_in_sentences(in_browser: InBrowser) -> None:
    in_browser()


def test_what_an_answer_lacks_is_said_in_the_visitors_language(in_browser: InBrowser) -> None:
    in_browser()
