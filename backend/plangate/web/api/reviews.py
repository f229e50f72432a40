"""Refunds and disputes over HTTP: what waits for a person, and their decision."""

from typing import Final

import msgspec

from plangate import reviews
from plangate.companies.paging import after_id, cursor_of
from plangate.errors import Code
from plangate.reviews import Review
from plangate.store.reviews import ReviewState
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.queries import ReviewsQuery
from plangate.web.schemas import ReviewBody

_TAG: Final = "Reviews"


class ReviewList(msgspec.Struct, frozen=True, kw_only=True):
    """One page of reviews, newest first; `next_cursor` null on the last."""

    data: list[Review]
    next_cursor: str | None


async def list_reviews(call: Call[None, ReviewsQuery]) -> Answer:
    """One page of reviews."""
    query = call.query
    found = await reviews.listing(
        call.environment,
        state=None if query.state is None else ReviewState(query.state),
        company_id=query.company,
        before=after_id(query.cursor, prefix="rev_"),
        limit=query.limit + 1,
    )
    following = cursor_of(found[query.limit - 1].id) if len(found) > query.limit else None
    return Answer(ReviewList(data=found[: query.limit], next_cursor=following))


async def resolve_review(call: Call[ReviewBody, None]) -> Answer:
    """A person's decision."""
    body = call.body
    decided = await reviews.resolve(
        call.environment, call.path["review_id"], access=body.access, note=body.note, actor=call.actor
    )
    return Answer(decided, headers=await call.version_of(decided.company))


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/reviews",
        name="listReviews",
        tag=_TAG,
        summary="List refunds and disputes to review",
        text="Newest first, `limit` at a time; `state` is `open` or `resolved`, `company` is an id. A refund or "
        "dispute revokes nothing by itself unless the catalogue's settings say so.",
        scope="read",
        answer=list_reviews,
        query=ReviewsQuery,
        responses={200: Documented("One page.", ReviewList)},
    ),
    Operation(
        method="POST",
        path="/v1/reviews/{review_id}/resolve",
        name="resolveReview",
        tag=_TAG,
        summary="Decide on a refund or dispute",
        text="`access` is `keep`, or `revoke`: then the subscription that was paid grants nothing until it is decided "
        "anew. Nothing is changed in Stripe.",
        scope="write",
        answer=resolve_review,
        body=ReviewBody,
        example={"access": "keep", "note": "Agreed with the customer."},
        responses={200: Documented("The review.", Review, headers=("Plangate-Version",))},
        problems=(Code.NOT_FOUND,),
        takes_idempotency_key=True,
    ),
)
