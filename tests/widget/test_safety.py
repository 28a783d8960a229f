"""Hostile answers, hostile histories, strict pages: the chat stays harmless and stays itself."""

from tests.widget.conftest import InBrowser


def test_a_hostile_answer_is_only_text(in_browser: InBrowser) -> None:
    in_browser()


def test_a_hostile_answer_split_over_tokens_is_only_text(in_browser: InBrowser) -> None:
    in_browser()


def test_a_hostile_answer_in_crooked_pieces_is_only_text(in_browser: InBrowser) -> None:
    in_browser()


def test_a_hostile_history_is_only_text(in_browser: InBrowser) -> None:
    in_browser()


def test_thousands_of_nested_quotes_do_not_stall_the_page(in_browser: InBrowser) -> None:
    in_browser()


def test_a_strict_policy_is_kept_and_the_chat_still_looks_right(in_browser: InBrowser) -> None:
    in_browser()


def test_prices_and_variables_with_dollars_do_not_swallow_the_answer(in_browser: InBrowser) -> None:
    in_browser()


def test_code_inside_a_quote_is_shown_without_the_quotes_marks(in_browser: InBrowser) -> None:
    in_browser()


def test_brackets_and_bare_addresses_are_read_as_people_mean_them(in_browser: InBrowser) -> None:
    in_browser()
