"""Which passages are taken for one and the same."""

from rag.search.duplicates import says_the_same

PAGE = (
    "The warranty lasts three years from the day of delivery. It covers the controller and both probes, but no damage "
    "from fresh water pumps of other makers. A controller can be returned within six weeks, without a reason."
)


def test_a_page_says_the_same_as_itself_in_other_clothes() -> None:
    assert says_the_same(PAGE, PAGE)
    assert says_the_same(PAGE, f"**{PAGE.replace('. ', '.' + chr(10) * 2)}**".upper())


def test_a_word_more_or_less_makes_no_other_page() -> None:
    assert says_the_same(PAGE, PAGE.replace("from the day of delivery", "from the first day of delivery"))


def test_another_number_is_another_page() -> None:
    one, other = f"Error E17 is shown. {PAGE}", f"Error E42 is shown. {PAGE}"
    assert not says_the_same(one, other)
    assert not says_the_same(f"{PAGE} It costs 5 euros.", f"{PAGE} It costs 6 euros.")


def test_two_texts_about_one_thing_stay_two() -> None:
    other = "The warranty covers the controller and both probes for three years; pumps of other makers are excluded."
    assert not says_the_same(PAGE, other)
    assert not says_the_same(PAGE, PAGE[: len(PAGE) // 2])


def test_texts_too_short_for_a_shingle_are_compared_too() -> None:
    assert says_the_same("Hello", "hello!")
    assert not says_the_same("Hello", "Goodbye")
    assert says_the_same("", "")
