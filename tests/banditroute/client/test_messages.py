"""The client's typed dictionaries name the fields that the HTTP contract has, no more, no fewer."""

from __future__ import annotations

from types import NoneType
from typing import Required, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel, ValidationError

from banditroute.client import messages
from banditroute.contract import schemas

# Typed dictionary, schema, and the fields that a method of the client takes as arguments instead.
PAIRS = [
    (messages.Ask, schemas.RouteRequest, set()),
    (messages.Observed, schemas.FeedbackRequest, {"decision_id", "preferred_over", "session_id", "pool"}),
    (messages.Properties, schemas.ModelChange, set()),
    (messages.NewProperties, schemas.NewModel, {"name", "pool"}),
    (messages.ScoredPromptFields, schemas.ScoredPrompt, set()),
    (messages.BudgetFields, schemas.NewBudget, {"name", "pool"}),
    (messages.BudgetChangeFields, schemas.BudgetChange, set()),
]  # fmt: skip


def required_of(fields: type) -> set[str]:
    # __required_keys__ is of no use where annotations are strings.
    hints = get_type_hints(fields, include_extras=True)
    return {name for name, hint in hints.items() if get_origin(hint) is Required}


@pytest.mark.parametrize(("fields", "schema", "arguments"), PAIRS)
def test_fields_and_what_is_required_are_those_of_the_schema(
    fields: type, schema: type[BaseModel], arguments: set[str]
) -> None:
    in_schema = schema.model_fields
    assert set(get_type_hints(fields)) == set(in_schema) - arguments
    required = {name for name, field in in_schema.items() if field.is_required()}
    assert required_of(fields) == required - arguments


def test_other_kinds_of_feedback_have_their_fields_from_the_same_schema() -> None:
    schema = schemas.FeedbackRequest
    verdict, by = set(get_type_hints(messages.Verdict)), set(get_type_hints(messages.By))
    assert by < verdict < set(schema.model_fields)
    sample = {"quality": 0.5, "pool": "p", "source": "s", "key": "k"}
    assert set(sample) == verdict
    schema.model_validate({"session_id": "s"} | sample)
    schema.model_validate({"decision_id": "a", "preferred_over": "b"} | {k: sample[k] for k in by})
    assert required_of(messages.Verdict) == {"quality"}
    with pytest.raises(ValidationError, match="required with session_id"):
        schema.model_validate({"session_id": "s", "source": "s"})


def test_none_is_sent_only_where_a_budget_can_lose_a_term() -> None:
    """Everywhere else the client leaves None out; see `test_budgets`."""
    for name, hint in get_type_hints(messages.BudgetChangeFields).items():
        if NoneType in get_args(hint):
            schemas.BudgetChange.model_validate({name: None})
        else:
            with pytest.raises(ValidationError, match="cannot be null"):
                schemas.BudgetChange.model_validate({name: None})
