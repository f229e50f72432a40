"""What decides about one user of a company, kept in memory for as long as the company's standing is."""

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from plangate.engine.facts import UserFacts
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.standing import Standing
from plangate.store.database import StoreSession
from plangate.store.usage import newest_windows
from plangate.store.users import user_facts, user_of_keys

_COMPANIES_HELD = 20_000
_USERS_HELD = 1_000

UserKeys = tuple[tuple[str, str], ...]


class _Members:
    """Known users of the companies of one environment; a standing that was replaced takes its users with it."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[Standing, dict[UserKeys, UserFacts]]] = {}

    def of(self, standing: Standing) -> dict[UserKeys, UserFacts]:
        company_id = standing.facts.company_id
        known = self.held.get(company_id)
        if known is None or known[0] is not standing:
            if known is None and len(self.held) >= _COMPANIES_HELD:
                self.held.pop(next(iter(self.held)))
            known = self.held[company_id] = (standing, {})
        return known[1]


_MEMBERS: WeakKeyDictionary[Environment, _Members] = WeakKeyDictionary()


def held_member(env: Environment, standing: Standing, keys: Mapping[str, str]) -> UserFacts | None:
    """The user these keys name, if they were asked for since the standing was loaded; without waiting."""
    members = _MEMBERS.get(env)
    return None if members is None else members.of(standing).get(tuple(sorted(keys.items())))


async def member(env: Environment, standing: Standing, keys: Mapping[str, str]) -> UserFacts | None:
    """The user of this company these keys name, or None: nobody, or somebody who does not belong to it.

    Their own counters are put beside the company's in `standing.counters`. Raises Refusal (409) when the keys belong
    to two users.
    """
    members = _MEMBERS.setdefault(env, _Members()).of(standing)
    asked = tuple(sorted(keys.items()))
    found = members.get(asked)
    if found is not None:
        return found
    company_id = standing.facts.company_id
    async with env.reading() as session:
        found = await member_in(session, company_id, keys)
        if found is None:
            return None
        own = await newest_windows(session, [company_id], user_ids=[found.user_id])
    for (_, feature, kind, user_id), window in own.items():
        # What this process counted while we read is newer than what we read.
        standing.counters.setdefault((feature, kind, user_id), window)
    if len(members) >= _USERS_HELD:
        members.pop(next(iter(members)))
    members[asked] = found
    return found


async def member_in(session: StoreSession, company_id: str, keys: Mapping[str, str]) -> UserFacts | None:
    """As `member`, read in an open session and without keeping anything."""
    user_id = one_user(await user_of_keys(session, keys))
    return None if user_id is None else await user_facts(session, company_id, user_id)


def one_user(user_ids: list[str]) -> str | None:
    """The one user some keys belong to, None when none is known. Raises Refusal (409) naming both."""
    if len(user_ids) > 1:
        raise Refusal(
            Code.KEY_CONFLICT,
            f"These keys belong to different users: {' and '.join(user_ids)}. Send the keys of one.",
            extra={"users": user_ids},
        )
    return user_ids[0] if user_ids else None
