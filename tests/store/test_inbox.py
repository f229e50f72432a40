"""What is asked of the inbox at every look at readiness stays cheap, however many events it keeps."""

import pytest
from sqlalchemy import event

from plangate.environment import Environment
from plangate.store.inbox import inbox_figures


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_figures_are_told_by_an_index_without_reading_the_events(environment: Environment) -> None:
    seen: list[tuple[str, tuple[object, ...]]] = []

    def note(_connection: object, _cursor: object, statement: str, values: tuple[object, ...], *_more: object) -> None:
        seen.append((statement, values))

    async with environment.reading() as session:
        engine = session.connection.engine.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        await inbox_figures(session)
        event.remove(engine, "before_cursor_execute", note)
        plans = [
            (await session.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).all()
            for statement, values in seen
        ]
    steps = [str(step[-1]) for plan in plans for step in plan]
    assert len(plans) == 3
    assert [step for step in steps if "COVERING INDEX inbox_by_state" not in step] == []
