"""Predict first; a check says why; nothing is told before a prediction."""

from __future__ import annotations

import numpy as np
import pytest

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.workshop import answers, check, hint, predict, progress, solution
from fairdiff_lib.workshop.questions import QUESTIONS


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_LEARNER", answers._Learner())


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_nothing_is_told_before_a_prediction(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(name, "c")
    solution(name)
    told = words(capsys)
    assert told.count("First predict:") == 2
    assert QUESTIONS[name].solution not in told
    assert progress() == {}


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_hints_end_and_the_solution_follows_a_prediction(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    question = QUESTIONS[name]
    for told in question.hints:
        hint(name)
        assert " ".join(told.split()) in words(capsys)
    hint(name)
    assert "No more hints" in words(capsys)
    first = question.after or name
    predict(first, (QUESTIONS[first].choices or ([1, 2],))[0])
    assert "Noted" in words(capsys)
    solution(name)
    assert " ".join(question.solution.split()) in words(capsys)


@pytest.mark.parametrize("name", sorted(n for n, q in QUESTIONS.items() if q.choices))
def test_a_letter_that_is_none_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    predict(name, "z")
    assert "is none of" in words(capsys)
    predict(name, ...)
    assert "in place of the dots" in words(capsys)


LETTERS = sorted(n for n, q in QUESTIONS.items() if q.choices and not q.numeric and q.truth)


@pytest.mark.parametrize("name", [name for name in LETTERS if name != "ends"])
def test_each_letter_has_its_own_answer(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    question, said = QUESTIONS[name], set()
    predict(question.after or name, (QUESTIONS[question.after or name].choices or ("x",))[0])
    words(capsys)
    for letter in question.choices:
        check(name, letter)
        told = words(capsys)
        assert told.startswith("Right." if letter == question.truth else "Not yet.")
        assert progress()[name] == (letter == question.truth)
        said.add(told)
    assert len(said) == len(question.choices)


def test_a_right_answer_is_compared_with_what_was_predicted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    predict("empty", "a")
    check("empty", 0.96**32)
    assert "You predicted (a), and it is (b)." in words(capsys)
    predict("empty", "b")
    check("empty", 0.96**32)
    assert "You predicted (b), as it turned out." in words(capsys)


def test_a_band_and_not_a_value_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Right in nearly every learner's own draw: 2,000 batches, and 10,000 weights of sigma 0.5."""
    rng = np.random.default_rng(1)
    predict("empty", "b")
    predict("favours", "c")
    words(capsys)
    for _ in range(200):
        check("empty", float((rng.binomial(32, 0.04, 2000) == 0).mean()))
        check("favours", float((1 + 0.5 * rng.standard_normal(10_000)).mean()))
    told = words(capsys)
    assert told.count("Not yet.") <= 1


def test_a_letter_may_be_written_in_other_ways(capsys: pytest.CaptureFixture[str]) -> None:
    for letter in ("C", "(c)", " c "):
        predict("alarms", letter)
        assert "Noted: c." in words(capsys)


def test_a_check_of_a_number_wants_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    predict("alarms", "c")
    check("alarms", "ten")
    assert "expected one number, not a str" in words(capsys)


def test_an_unknown_question_is_one_line() -> None:
    with pytest.raises(InputError, match="unknown question 'nothing'; known: generated"):
        check("nothing", 1)
