"""`Idempotency-Key`: the same key and body give the same answer, and one effect."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.store.idempotency import IdempotencyRow, begin_request, complete_request, forget_request

_KEY: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
# A first try that is still open after this long died with its process; its effects are guarded by the journey itself.
_ABANDONED_AFTER: Final = timedelta(seconds=60)

Answered = tuple[int, Any, Mapping[str, str]]


async def once(
    env: Environment, *, scope: str, key: bytes, body_hash: str, answer: Callable[[], Awaitable[Answered]]
) -> Answered:
    """The first answer given under this key: (status, JSON body, headers). A refused try leaves the key unused.

    Raises Refusal: 400 for a key that is none, 409 for another body or while the first try still runs.
    """
    if not _KEY.fullmatch(key):
        raise Refusal(Code.MALFORMED, "Idempotency-Key holds 1 to 255 printable ASCII characters.")
    key_hash = hashlib.sha256(key).hexdigest()
    known = await _claim(env, scope, key_hash, body_hash)
    if known is not None:
        return _repeated(known, body_hash)
    try:
        status, body, headers = await answer()
    except BaseException:
        async with env.writing() as session:
            await forget_request(session, scope, key_hash)
        raise
    async with env.writing() as session:
        await complete_request(session, scope, key_hash, status=status, answer={"body": body, "headers": dict(headers)})
    return status, body, headers


async def _claim(env: Environment, scope: str, key_hash: str, body_hash: str) -> IdempotencyRow | None:
    async with env.writing() as session:
        row = IdempotencyRow(
            environment_id=env.id,
            scope=scope,
            key_hash=key_hash,
            body_hash=body_hash,
            created_at=wall_now(),
        )
        known = await begin_request(session, row)
        if known is None or known.status != 0 or abs(row.created_at - known.created_at) < _ABANDONED_AFTER:
            return known
        await forget_request(session, scope, key_hash)
        return await begin_request(session, row)


def _repeated(known: IdempotencyRow, body_hash: str) -> Answered:
    if known.body_hash != body_hash:
        raise Refusal(
            Code.IDEMPOTENCY_CONFLICT,
            "This idempotency key was used with another request. Take a new key for a new request.",
        )
    if known.status == 0:
        raise Refusal(
            Code.REQUEST_IN_PROGRESS,
            "The first request with this idempotency key is still under way. Try again in a moment.",
            headers={"Retry-After": "1"},
        )
    return known.status, known.answer["body"], {**known.answer["headers"], "Idempotent-Replayed": "true"}
