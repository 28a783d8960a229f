"""A way to a person, in the chat."""

from tests.widget.conftest import InBrowser


def test_a_visitor_asks_for_a_person_and_gets_a_number(in_browser: InBrowser) -> None:
    in_browser()


def test_whoever_dislikes_two_answers_is_offered_a_person_with_the_second(in_browser: InBrowser) -> None:
    in_browser()


def test_a_person_is_offered_below_the_field_and_only_where_there_is_one(in_browser: InBrowser) -> None:
    in_browser()
