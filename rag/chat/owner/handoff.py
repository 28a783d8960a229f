"""A way to a person: a visitor's message, kept until it has reached the owner by webhook or by mail.

A message has one id, and every try shows it: who receives it twice can tell. Knows no route; how a request leaves the
process is passed in.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import random
import re
import secrets
import smtplib
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from rag.chat.turn import Turn
from rag.errors import StateUnavailable, StorageFull
from rag.public_addresses import NotPublic
from rag.settings import Settings
from rag.stores.outbox import Outbox, Waiting
from rag.stores.protocols import FeedbackStore
from rag.types import Message

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
TRY_TIMEOUT_S = 5.0
LEASE_S = 30.0
"""Longer than a try takes; one whose process is killed is tried again after that."""
GIVEN_UP_AFTER_S = 24 * 3600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 3600.0
SUMMARY = "summary.weekly"
"""The type of a message that no visitor wrote."""
GONE = 410
"""What a webhook answers that wants no more."""
MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[int]]
"""POSTs a body with headers to an address; the status of the answer. Raises `NotPublic` where it may not go there."""


def channels(settings: Settings) -> list[str]:
    """The ways on which messages reach the owner."""
    ways = (("webhook", settings.escalation_webhook_url), ("mail", settings.escalation_email))
    return [name for name, wanted in ways if wanted]


class Undeliverable(Exception):
    """It will not arrive there, however often it is tried."""


class Handoffs:
    """Takes messages in, and delivers them. One for each process; a message is delivered by one of them."""

    def __init__(self, *, outbox: Outbox, settings: Settings, post: Post) -> None:
        self._outbox = outbox
        self._settings = settings
        self._post = post

    async def take(self, *, email: str, message: str, conversation: Sequence[Message] | None, page: str) -> str:
        """The reference under which the owner finds it. Raises `StorageFull` and `StateUnavailable`."""
        reference = "H-" + "".join(secrets.choice(_LETTERS) for _ in range(6))
        told = {
            "reference": reference, "email": email, "message": message, "page": page,
            "conversation": None if conversation is None else [
                {"role": turn.role, "content": turn.content} for turn in conversation
            ],
        }  # fmt: skip
        asked = {"type": "handoff.requested", "timestamp": formatdate(usegmt=True), "site": self._settings.site_name}
        payload = orjson.dumps({**asked, "data": told})
        messages = [(f"msg_{uuid.uuid4().hex}", channel, payload) for channel in channels(self._settings)]
        if not await self._outbox.put(messages):
            raise StorageFull("the outbox is full")
        return reference

    async def deliver_forever(self) -> None:
        told = ""
        while True:
            try:
                while waiting := await self._outbox.next_due(lease_s=LEASE_S):
                    await self._deliver(waiting)
                told = ""
            except StateUnavailable as error:
                if str(error) != told:  # not every second of an outage
                    log.warning("outbox not read", extra={"reason": (told := str(error))})
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        await self._outbox.close()

    async def _deliver(self, waiting: Waiting) -> None:
        fields = {"id": waiting.id, "channel": waiting.channel, "tries": waiting.tries + 1}
        try:
            if waiting.channel == "webhook":
                await self._to_webhook(waiting)
            else:
                message = mail_of(waiting, to=self._settings.escalation_email)
                await asyncio.to_thread(send_mail, message, self._settings.smtp_url)
        except Undeliverable as error:
            log.error("message to the owner given up", extra={**fields, "reason": str(error)})
        except Exception as error:  # whatever a library raises, the message has not arrived
            if waiting.age_s < GIVEN_UP_AFTER_S:
                pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**waiting.tries) * random.uniform(0.8, 1.2)  # noqa: S311
                log.warning(
                    "message to the owner not delivered, tried again", extra={**fields, "reason": _reason(error)}
                )
                await self._outbox.later(waiting.id, after_s=pause_s)
                return
            log.error("message to the owner given up", extra={**fields, "reason": _reason(error)})
        else:
            log.info("message to the owner delivered", extra=fields)
        await self._outbox.remove(waiting.id)

    async def _to_webhook(self, waiting: Waiting) -> None:
        now = str(int(time.time()))
        headers = signed(waiting.id, now, waiting.payload, secret=self._settings.escalation_webhook_secret)
        url = self._settings.escalation_webhook_url
        try:
            status = await self._post(url, waiting.payload, {"Content-Type": "application/json", **headers})
        except NotPublic as error:
            raise Undeliverable(f"{error}; ESCALATION_ALLOW_PRIVATE lets it in") from None
        if status == GONE:
            raise Undeliverable("the webhook wants no more")
        if not 200 <= status < 300:
            raise ConnectionError(f"the webhook answered {status}")


async def with_thumbs(turn: Turn, feedback: FeedbackStore | None) -> Turn:
    """The turn, with how many answers of its conversation were disliked, where that is known."""
    if feedback is None or turn.question.session_id is None or not turn.earlier:
        return turn
    try:
        return replace(turn, disliked=await feedback.disliked(turn.question.session_id))
    except StateUnavailable as error:
        log.warning("thumbs not read", extra={"reason": str(error)})
        return turn


def signed(identity: str, timestamp: str, body: bytes, *, secret: str) -> dict[str, str]:
    """The headers of a Standard Webhook (https://www.standardwebhooks.com), version 1: HMAC-SHA-256 in base64."""
    headers = {"webhook-id": identity, "webhook-timestamp": timestamp}
    if secret:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        content = b".".join((identity.encode(), timestamp.encode(), body))
        headers["webhook-signature"] = "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return headers


def mail_of(waiting: Waiting, *, to: str) -> EmailMessage:
    """The message as plain text. The visitor's address is where an answer goes, and never the sender."""
    told: dict[str, Any] = orjson.loads(waiting.payload)
    data = told["data"]
    message = EmailMessage()
    site = " ".join(str(told["site"]).split())
    message["From"] = to
    message["To"] = to
    message["Date"] = told["timestamp"]
    message["Message-ID"] = f"<{waiting.id}@{to.rpartition('@')[2]}>"
    if told["type"] == SUMMARY:
        message["Subject"] = f"What visitors of {site} asked, week of {data['from']}"
        message.set_content(f"{data['text']}\n")
        return message
    message["Subject"] = f"{data['reference']}: a visitor of {site} asks for a person"
    message["Reply-To"] = data["email"]
    said = [f"{data['email']} asks for an answer.", data["message"], f"Page: {data['page']}" if data["page"] else ""]
    who = {"user": "Visitor", "assistant": "Chat"}
    said += [f"{who[turn['role']]}: {turn['content']}" for turn in data["conversation"] or []]
    message.set_content("\n\n".join(filter(None, said)) + "\n")
    return message


def send_mail(message: EmailMessage, url: str) -> None:
    """Blocks. `url` is smtp://, smtps:// or smtp+starttls://USER:PASS@HOST:PORT. Raises what smtplib does."""
    parts = urlsplit(url)
    secure = parts.scheme == "smtps"
    port = parts.port or {"smtp": 25, "smtps": 465}.get(parts.scheme, 587)
    kind: Callable[..., smtplib.SMTP] = smtplib.SMTP_SSL if secure else smtplib.SMTP
    options = {"context": ssl.create_default_context()} if secure else {}
    with kind(parts.hostname or "", port, timeout=TRY_TIMEOUT_S, **options) as server:
        if parts.scheme == "smtp+starttls":
            server.starttls(context=ssl.create_default_context())
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(message)


def _reason(error: Exception) -> str:
    """Of what kind it was: the text of a library's error may hold addresses of visitors."""
    return f"{type(error).__name__}: {error}" if isinstance(error, ConnectionError) else type(error).__name__
