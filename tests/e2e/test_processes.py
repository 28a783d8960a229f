"""Workers die, reload and stop under load: what is lost, how soon all is well again, and how a server ends."""

from tests.conftest import StartServer
from tests.soak import scenarios


def test_a_killed_worker_takes_only_the_requests_in_its_hands_and_is_replaced_in_two_seconds(
    start_server: StartServer,
) -> None:
    scenarios.kills(start_server(workers=2), times=5, workers=2)
