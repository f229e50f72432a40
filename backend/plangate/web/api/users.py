"""Users over HTTP: upsert by any key, one, and the list of all or of one company."""

from typing import Final

import msgspec

from plangate import companies
from plangate.errors import Code
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.queries import NoQuery, UsersQuery
from plangate.web.schemas import UserBody
from plangate.web.versions import HEADER as VERSION_HEADER

_TAG: Final = "Users"


class UserList(msgspec.Struct, frozen=True, kw_only=True):
    """One page of users; `next_cursor` null on the last."""

    data: list[companies.User]
    next_cursor: str | None


async def put_user(call: Call[UserBody, None]) -> Answer:
    """Make or update a user."""
    body = call.body
    user, is_created = await companies.upsert_user(
        call.environment,
        keys=body.keys,
        name=body.name,
        traits=body.traits,
        companies=body.companies,
        left=body.left,
        actor=call.actor,
    )
    concerned = [*user.companies]
    for keys in body.left:
        standing = await call.environment.standings.of_keys(keys)
        concerned += [] if standing is None else [standing.facts.company_id]
    return Answer(user, 201 if is_created else 200, await call.version_of(*concerned))


async def list_users(call: Call[None, UsersQuery]) -> Answer:
    """One page of users."""
    query = call.query
    found, cursor = await companies.search_users(
        call.environment, company_id=query.company, search=query.search, cursor=query.cursor, limit=query.limit
    )
    return Answer(UserList(data=found, next_cursor=cursor))


async def get_user(call: Call[None, None]) -> Answer:
    """One user."""
    return Answer(await companies.get_user(call.environment, call.path["user_id"]))


OPERATIONS: Final = (
    Operation(
        method="PUT",
        path="/v1/users",
        name="putUser",
        tag=_TAG,
        summary="Make or update a user",
        text="Known by any of their keys; `companies` are the companies they belong to, by key, and must exist. They "
        "stay in a company until `left` names it.",
        scope="write",
        answer=put_user,
        body=UserBody,
        example={"keys": {"id": "ada"}, "name": "Ada", "companies": [{"id": "acme"}]},
        responses={
            200: Documented("The user.", companies.User, headers=(VERSION_HEADER,)),
            201: Documented("Made.", companies.User, headers=(VERSION_HEADER,)),
        },
        problems=(Code.KEY_CONFLICT, Code.NOT_FOUND),
    ),
    Operation(
        method="GET",
        path="/v1/users",
        name="listUsers",
        tag=_TAG,
        summary="List users",
        text="Oldest first, `limit` at a time; of one `company`, by id; `search` looks into names and keys.",
        scope="read",
        answer=list_users,
        query=UsersQuery,
        responses={200: Documented("One page.", UserList)},
    ),
    Operation(
        method="GET",
        path="/v1/users/{user_id}",
        name="getUser",
        tag=_TAG,
        summary="One user",
        text="With the companies they belong to.",
        scope="read",
        answer=get_user,
        query=NoQuery,
        responses={200: Documented("The user.", companies.User)},
        problems=(Code.NOT_FOUND,),
    ),
)
