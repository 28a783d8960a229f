"""What a call costs: the worst case until more is known, in tokens or money."""

import pytest

from rag.access.budgets import Prices, _Bill
from rag.calls import Usage
from rag.errors import ConfigError
from rag.settings import Settings
from rag.types import Budget

WORST = Usage(prompt=4_000, completion=1_000)


def charged(*told: str) -> Usage:
    """What is charged after these words of a call."""
    charges: list[Usage] = []
    bill = _Bill(WORST, charges.append)
    for word in told:
        {
            "used": lambda: bill.used(Usage(900, 80)),
            "wrote": lambda: bill.wrote(50),
            "unread": lambda: bill.refused(read_the_prompt=False),
            "read": lambda: bill.refused(read_the_prompt=True),
        }[word]()
    bill.settle()
    bill.settle()
    assert len(charges) == 1
    return charges[0]


@pytest.mark.parametrize(
    ("told", "cost"),
    [
        ((), WORST),
        (("used",), Usage(900, 80)),
        (("wrote", "wrote"), Usage(4_000, 100)),
        (("wrote",) * 30, WORST),
        (("wrote", "used"), Usage(900, 80)),
        (("unread",), Usage()),
        (("read",), Usage(4_000, 0)),
    ],
)
def test_a_call_costs_what_is_known_of_it_and_else_the_most_it_may(told: tuple[str, ...], cost: Usage) -> None:
    assert charged(*told) == cost


def test_tokens_count_alike_and_money_by_prices_rounded_up() -> None:
    prices = Prices(prompt=0.15, completion=0.60, embedding=0.02)
    usage = Usage(prompt=1_000, completion=100, embedding=10)
    assert prices.cost(usage, Budget(500_000, "")) == 1_110
    # 0.00015 + 0.00006 + 0.0000002 dollars, in billionths.
    assert prices.cost(usage, Budget(5, "USD")) == 210_200
    assert Prices(prompt=0.0001).cost(Usage(prompt=1), Budget(5, "USD")) == 1


@pytest.mark.parametrize(
    "value", ["5", "5/day/day", "0/day", "5.5/day", "-1/day", "5 DOLLARS/day", "5USD/month", "٥/day"]
)
def test_a_budget_that_cannot_be_read_is_a_fault(value: str) -> None:
    with pytest.raises(ConfigError, match="BUDGET_SITE"):
        Settings.from_environment({"DEMO": "true", "BUDGET_SITE": value})


def test_money_needs_prices_of_the_same_currency() -> None:
    with pytest.raises(ConfigError, match="PRICE_INPUT and PRICE_OUTPUT"):
        Settings.from_environment({"DEMO": "true", "BUDGET_SITE": "5USD/day", "PRICE_INPUT": "1"})
    prices = {"DEMO": "true", "PRICE_INPUT": "0.15", "PRICE_OUTPUT": "0.6"}
    with pytest.raises(ConfigError, match="one currency"):
        Settings.from_environment({**prices, "BUDGET_SITE": "5USD/day", "BUDGET_KEY": "5EUR/day"})
    settings = Settings.from_environment({**prices, "BUDGET_SITE": "5.00 usd/day", "BUDGET_KEY": "500000/day"})
    assert (settings.budget_site, settings.budget_key) == (Budget(5.0, "USD"), Budget(500_000.0, ""))
