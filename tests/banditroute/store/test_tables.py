from __future__ import annotations

from sqlalchemy import BigInteger, Float, LargeBinary, PickleType
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from banditroute.store.tables import metadata


def test_times_and_money_are_big_integers() -> None:
    for table in metadata.tables.values():
        for column in table.columns:
            if column.name.endswith(("_at", "_nano", "valid_from")):
                assert isinstance(column.type, BigInteger), column
            if column.name.endswith("_nano"):
                assert not isinstance(column.type, Float)


def test_nothing_is_pickled() -> None:
    columns = [c for table in metadata.tables.values() for c in table.columns]
    assert not any(isinstance(column.type, PickleType) for column in columns)
    assert any(isinstance(column.type, LargeBinary) for column in columns)


def test_the_whole_schema_of_the_plan_is_there() -> None:
    planned = (
        "pools models prices decisions events feedback comparisons session_feedback checkpoints "
        "learner_leases budgets reservations leases idempotency_keys"
    )
    assert set(metadata.tables) == set(planned.split())


def test_everything_but_process_wide_tables_belongs_to_a_pool() -> None:
    without = {"pools", "feedback", "reservations", "leases", "idempotency_keys", "learner_leases"}
    for name, table in metadata.tables.items():
        assert ("pool" in table.columns) == (name not in without), name


def test_no_column_holds_a_prompt() -> None:
    names = {c.name for table in metadata.tables.values() for c in table.columns}
    assert {name for name in names if "prompt" in name or "message" in name} == {"prompt_hash"}


def test_the_schema_compiles_for_postgresql() -> None:
    made: list[str] = []
    for table in metadata.sorted_tables:
        made.append(str(CreateTable(table).compile(dialect=postgresql.dialect())))
    assert any("seq BIGSERIAL" in statement for statement in made)
