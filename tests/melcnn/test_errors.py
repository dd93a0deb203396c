"""One line for a person, whatever it quotes."""

import pytest
from pydantic import BaseModel, ValidationError

from melcnn import errors
from melcnn.errors import MAX_MESSAGE_LENGTH, Failed, InputError, first_problem, one_line, visible


class Model(BaseModel):
    values: list[int]


@pytest.mark.parametrize("kind", [InputError, Failed])
def test_what_a_terminal_obeys_is_shown(kind):
    assert str(kind("a\nb\x1b[2J\u2028\u202e\ud800\x9b")) == "a\\nb\\x1b[2J\\u2028\\u202e\\ud800\\x9b"
    assert visible("Grüße, 👋 'x'\\n") == "Grüße, 👋 'x'\\n"


@pytest.mark.parametrize("kind", [InputError, Failed])
def test_a_long_name_leaves_room_for_what_to_do(kind):
    text = str(kind(f"{'x' * 70_000} is damaged: make it again"))
    assert len(text) == MAX_MESSAGE_LENGTH and text.startswith("xxx") and text.endswith("x is damaged: make it again")
    assert str(kind("x" * MAX_MESSAGE_LENGTH)) == "x" * MAX_MESSAGE_LENGTH
    # A character that is shown by ten counts as ten.
    assert len(str(kind("\x1b" * MAX_MESSAGE_LENGTH))) == MAX_MESSAGE_LENGTH


def problem(values):
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"values": values})
    return caught.value


def test_the_first_of_many_problems():
    assert first_problem(problem([1, "x", "y"])).startswith("values.1: Input should be a valid integer")
    assert first_problem(problem(["x"] * errors.MAX_PROBLEMS)).startswith("values.0: ")


def test_a_million_problems_are_counted_and_not_listed(monkeypatch):
    found = problem(["x"] * (errors.MAX_PROBLEMS + 1))
    monkeypatch.setattr(ValidationError, "errors", None, raising=False)
    assert first_problem(found) == "101 values are not what they should be"
    with pytest.raises(InputError, match=r"^settings: 101 values are not what they should be$"), one_line("settings"):
        raise found


def test_a_key_of_any_length_is_named_by_its_beginning():
    with pytest.raises(ValidationError) as caught:
        type("Strict", (Model,), {"model_config": {"extra": "forbid"}}).model_validate({"values": [], "k" * 9999: 1})
    assert first_problem(caught.value) == f"{'k' * 60}: Extra inputs are not permitted"
