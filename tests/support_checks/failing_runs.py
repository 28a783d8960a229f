"""Runs that fail as a whole, for `test_make_test.py`: each class is one run of its own, and every test in it passes."""

from collections.abc import Iterator

import pytest

from tests.support.canary import Watch


class TestLeak:
    def test_that_leaks(self, watch: Watch) -> None:
        watch.leaks.append("body of GET /somewhere: secret…")

    def test_that_comes_last(self) -> None:
        pass


@pytest.fixture(scope="session")
def shared() -> Iterator[None]:
    yield
    raise RuntimeError("a server does not stop")


class TestSharedServer:
    def test_that_uses_it(self, shared: None) -> None:
        pass

    def test_that_comes_last(self) -> None:
        pass


class TestOfItsOwn:
    def test_that_fails(self) -> None:
        raise AssertionError("for reasons of its own")

    def test_that_comes_last(self) -> None:
        pass
