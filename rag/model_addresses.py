"""How a model is addressed, and who this server is to Azure: what the texts of these settings mean.

Each parser raises `ValueError` with what is allowed, and nothing else.
"""

import re
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from rag import setting_parsers as parse


def urls(value: str) -> tuple[str, ...]:
    urls = parse.listed(",")(value)
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ValueError("a full URL as Azure shows it, https://…/chat/completions?api-version=…")
    return urls


Kind = Literal["CHAT", "EMBEDDINGS"]
OPERATIONS: dict[Kind, str] = {"CHAT": "/chat/completions", "EMBEDDINGS": "/embeddings"}
AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com", ".openai.azure.us")
EXAMPLE = "https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT{operation}?api-version=2024-10-21"
OLLAMA_PORT = 11434


def completed(url: str, kind: Kind) -> str:
    """A model's address as it is called, from what an operator may write.

    A base address is completed where its meaning is clear: `/v1` of OpenAI, Ollama, vLLM and Azure, and the address of
    a deployment. Every other address is taken as it is, except one that can only be a mistake. Raises
    `ValueError` with what is allowed for one that cannot work.
    """
    parts = urlsplit(url)
    path, operation = parts.path.rstrip("/"), OPERATIONS[kind]
    other_kind: Kind = "EMBEDDINGS" if kind == "CHAT" else "CHAT"
    example = EXAMPLE.format(operation=operation)
    if path.endswith(OPERATIONS[other_kind]):
        raise ValueError(f"an address that ends in {operation}; this one is for AZURE_OPENAI_{other_kind}_ENDPOINT")
    if not path.endswith(operation):
        host = parts.hostname or ""
        if path.endswith("/v1") or ("/openai/deployments/" in path and path.count("/") == 3):
            path += operation
        elif not path and (host == "api.openai.com" or parts.port == OLLAMA_PORT):
            path = f"/v1{operation}"
        elif not path and host.endswith(AZURE_HOSTS):
            raise ValueError(
                f"the address of a deployment, {example}; or https://{host}/openai/v1 with its model's name"
            )
        elif not path:
            raise ValueError(f"the whole address, {example} or https://HOST/v1")
    if "/openai/deployments/" in path and "api-version=" not in parts.query:
        raise ValueError(f"a deployment's address with its api-version, as Azure shows it: {example}")
    return urlunsplit(parts._replace(path=path))


def is_azure(url: str) -> bool:
    """Whether this is a model of Azure's, or of a gateway that has its paths."""
    host, path = urlsplit(url).hostname or "", urlsplit(url).path
    return host.endswith((".azure.com", ".azure.us", ".azure.cn")) or path.startswith("/openai/")


def token_scope(value: str) -> str:
    if not parse.web_address(value).startswith("https://") or not value.endswith("/.default"):
        raise ValueError("https://cognitiveservices.azure.com/.default, or another address that ends in /.default")
    return value


def azure_name(value: str) -> str:
    """An id or a domain: it becomes a part of the login's address."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", value):
        raise ValueError("an id such as 00000000-0000-0000-0000-000000000000")
    return value


def authority(value: str) -> str:
    """As Azure's own programs read it: a host or its address, and never without TLS."""
    value = value if "://" in value else f"https://{value}"
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.path.strip("/") or parts.query:
        raise ValueError("the address of a login, such as https://login.microsoftonline.us")
    return value.rstrip("/")
