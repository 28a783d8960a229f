"""The page around the chat and the person before it: phones, themes, languages, keyboards, foreign styles."""

from rag.chat.texts import load_texts
from tests.widget.conftest import InBrowser


def test_on_a_phone_the_chat_takes_the_whole_screen_and_leaves_it(in_browser: InBrowser) -> None:
    in_browser()


def test_nothing_scrolls_sideways_on_a_small_phone(in_browser: InBrowser) -> None:
    in_browser()


def test_the_visitors_dark_theme_is_followed_and_the_pages_own_wins(in_browser: InBrowser) -> None:
    in_browser()


def test_any_accent_colour_stays_readable(in_browser: InBrowser) -> None:
    in_browser()


def test_keyboard_alone_reaches_everything_and_focus_comes_back(in_browser: InBrowser) -> None:
    in_browser()


def test_axe_finds_nothing_in_any_state(in_browser: InBrowser) -> None:
    in_browser()


def test_styles_leak_neither_in_nor_out(in_browser: InBrowser) -> None:
    in_browser()


def test_a_page_written_from_right_to_left_is_mirrored(in_browser: InBrowser) -> None:
    in_browser()


def test_the_pages_language_is_spoken_or_the_one_asked_for(in_browser: InBrowser) -> None:
    in_browser()


def test_who_wants_no_motion_sees_none(in_browser: InBrowser) -> None:
    in_browser()


def test_a_page_of_another_origin_may_embed_the_chat(in_browser: InBrowser) -> None:
    in_browser()


def test_code_is_copied_as_it_was_written(in_browser: InBrowser) -> None:
    in_browser()


def test_who_goes_to_the_end_of_a_growing_answer_stays_there(in_browser: InBrowser) -> None:
    in_browser()


def test_after_a_retry_the_keyboard_is_still_in_the_dialog(in_browser: InBrowser) -> None:
    in_browser()


def test_a_reload_shows_the_end_of_the_conversation(in_browser: InBrowser) -> None:
    in_browser()


def test_a_long_answer_is_read_from_its_beginning(in_browser: InBrowser) -> None:
    in_browser()


def test_over_a_phones_screen_focus_stays_in_the_dialog(in_browser: InBrowser) -> None:
    in_browser()


def test_the_chat_stays_open_from_page_to_page_of_a_site(in_browser: InBrowser) -> None:
    in_browser()


def test_a_link_on_a_phone_shows_its_page_and_not_the_chat(in_browser: InBrowser) -> None:
    in_browser()


def test_a_refused_origin_is_explained_in_the_console(in_browser: InBrowser) -> None:
    in_browser()


def test_it_says_that_an_ai_answers_and_links_the_privacy_statement(in_browser: InBrowser) -> None:
    in_browser()


def test_an_image_cannot_stand_in_the_scripts_place(in_browser: InBrowser) -> None:
    in_browser()


def test_each_of_eleven_languages_is_spoken(in_browser: InBrowser) -> None:
    texts = load_texts(None)
    assert len(texts) == 11
    in_browser(texts=texts)


def test_an_owners_own_words_are_shown(in_browser: InBrowser) -> None:
    in_browser()


def test_what_is_marked_on_the_page_goes_with_the_question_that_shows_it(in_browser: InBrowser) -> None:
    in_browser()


def test_of_the_page_no_more_is_told_than_it_allows(in_browser: InBrowser) -> None:
    in_browser()


def test_code_and_tables_without_room_are_enlarged_over_the_page(in_browser: InBrowser) -> None:
    in_browser()


def test_the_sites_logo_stands_in_header_and_greeting(in_browser: InBrowser) -> None:
    in_browser()
