"""A visitor asks: what the chat shows, sends and keeps, against a server that answers as a case wants it."""

from tests.widget.conftest import InBrowser


def test_a_first_visit_shows_a_button_and_fetches_nothing(in_browser: InBrowser) -> None:
    in_browser()


def test_the_open_chat_greets_with_the_sites_name_and_its_questions(in_browser: InBrowser) -> None:
    in_browser()


def test_data_attributes_win_over_the_servers_settings(in_browser: InBrowser) -> None:
    in_browser()


def test_words_are_shown_as_they_arrive(in_browser: InBrowser) -> None:
    in_browser()


def test_events_cut_inside_letters_and_lines_are_put_together(in_browser: InBrowser) -> None:
    in_browser()


def test_a_citation_split_over_tokens_leads_to_its_source(in_browser: InBrowser) -> None:
    in_browser()


def test_a_source_without_an_address_shows_its_passage_instead(in_browser: InBrowser) -> None:
    in_browser()


def test_a_page_of_the_servers_own_is_linked_wherever_the_chat_stands(in_browser: InBrowser) -> None:
    in_browser()


def test_the_whole_answer_replaces_pieces_that_were_taken_back(in_browser: InBrowser) -> None:
    in_browser()


def test_a_follow_up_carries_the_conversation_on(in_browser: InBrowser) -> None:
    in_browser()


def test_a_reload_keeps_conversation_and_citations(in_browser: InBrowser) -> None:
    in_browser()


def test_a_second_tab_follows_the_first(in_browser: InBrowser) -> None:
    in_browser()


def test_a_deleted_conversation_is_forgotten_everywhere(in_browser: InBrowser) -> None:
    in_browser()


def test_two_chats_on_a_page_are_one_conversation(in_browser: InBrowser) -> None:
    in_browser()


def test_thumbs_are_sent_with_the_place_of_the_answer_and_a_reason(in_browser: InBrowser) -> None:
    in_browser()


def test_a_thumb_down_without_a_reason_counts_when_the_page_is_left(in_browser: InBrowser) -> None:
    in_browser()


def test_numbers_lead_to_the_passages_that_they_stand_for_from_the_first_token_on(in_browser: InBrowser) -> None:
    in_browser()


def test_thumbs_vanish_where_the_server_takes_none(in_browser: InBrowser) -> None:
    in_browser()


def test_chips_are_one_a_page_and_no_two_have_the_same_words(in_browser: InBrowser) -> None:
    in_browser()


def test_the_page_is_told_of_questions_answers_and_feedback(in_browser: InBrowser) -> None:
    in_browser()


def test_a_new_conversation_can_be_undone(in_browser: InBrowser) -> None:
    in_browser()


def test_the_sites_questions_in_an_answer_are_buttons_that_ask_them(in_browser: InBrowser) -> None:
    in_browser()


def test_earlier_conversations_are_listed_and_go_on(in_browser: InBrowser) -> None:
    in_browser()


def test_an_answer_of_the_model_can_be_asked_for_again(in_browser: InBrowser) -> None:
    in_browser()


def test_an_answer_that_people_wrote_says_so(in_browser: InBrowser) -> None:
    in_browser()


def test_a_server_that_comes_late_brings_the_words_along(in_browser: InBrowser) -> None:
    in_browser()
