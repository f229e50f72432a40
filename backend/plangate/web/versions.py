"""`Plangate-Version`: a write says how far it got, and a read that sends it back is never older, in any process.

A change of facts counts the company's version, so the number is enough. Counted usage does not: its writes add which
process counted (`7~c0ffee…`), and any other process then reads the company anew before it answers.
"""

import re
from collections.abc import Mapping
from typing import Final

from plangate.environment import PROCESS, Environment
from plangate.errors import Code, Refusal
from plangate.web.exchange import Exchange

HEADER: Final = "Plangate-Version"
HEADER_BYTES: Final = b"plangate-version"
_TOKEN: Final = re.compile(rb"([0-9]{1,18})(?:~([0-9a-f]{16}))?")
_OURS: Final = PROCESS.encode("ascii")


async def catch_up(env: Environment, exchange: Exchange, company_id: str) -> None:
    """See to it that what is held of the company is not older than the write the client saw.

    Raises Refusal (400) when the header is not one that a write answered with.
    """
    if exchange.version is None:
        return
    version, counted_by = _read(exchange.version)
    if counted_by is not None and counted_by != _OURS:
        env.forget(company_id)
    await env.standings.of(company_id, at_least=version)


async def catch_up_by_keys(env: Environment, exchange: Exchange, keys: Mapping[str, str]) -> None:
    """As `catch_up`, for a company known by its keys."""
    if exchange.version is None:
        return
    _read(exchange.version)
    standing = await env.standings.of_keys(keys)
    if standing is not None:
        await catch_up(env, exchange, standing.facts.company_id)


def after_counting(env: Environment, company_id: str | None) -> tuple[tuple[bytes, bytes], ...]:
    """The header of an answer to counted usage, or none when the company is not known."""
    standing = None if company_id is None else env.standings.held(company_id)
    return () if standing is None else ((HEADER_BYTES, b"%d~%s" % (standing.facts.version, _OURS)),)


def _read(text: bytes) -> tuple[int, bytes | None]:
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise Refusal(Code.MALFORMED, "Plangate-Version is what a write answered with: send it back as it was.")
    return int(found[1]), found[2]
