"""A client as the product's is: it carries the key."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.azure import AzureEmulator


@pytest.fixture
def client(azure: AzureEmulator) -> Iterator[httpx.Client]:
    with httpx.Client(headers={"api-key": azure.api_key}, timeout=20.0, trust_env=False) as opened:
        yield opened
