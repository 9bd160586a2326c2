"""Predict, run, check: a learner's answers, each told why it is right or what is wrong with it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from fairdiff_lib.settings.errors import InputError

WIDTH = 84  # characters of a line: a phone wraps it, a notebook does not


@dataclass(frozen=True)
class Verdict:
    right: bool
    why: str


@dataclass(frozen=True)
class Question:
    """A question of the workshop; its words stand in the notebook."""

    # whether an answer is right, and why; against the law: a closed form, or a band that holds its
    # Monte Carlo error
    judge: Callable[[Any], Verdict]
    solution: str | Callable[[], str]  # called where its numbers come from the law
    hints: tuple[str, ...] = ()  # from vague to plain
    choices: tuple[str, ...] = ()  # what may be predicted; empty = a number, or nothing
    truth: str = ""  # the choice that holds; empty where nothing is predicted
    after: str = ""  # the question of which a prediction has to be made first; empty = its own
    numeric: bool = False  # whether the answer that is checked is a number
    listed: int = 0  # numbers that a prediction lists; 0 = it is no list

    def solved(self) -> str:
        """The solution in words."""
        return self.solution if isinstance(self.solution, str) else self.solution()


def choose(right: str, because: str, wrong: Mapping[str, str], **more: Any) -> Question:
    """A question whose answer is a letter; ``wrong``: any other letter to what is wrong with it."""
    letters = tuple(sorted([right, *wrong]))

    def judge(answer: Any) -> Verdict:
        if answer not in letters:
            return Verdict(False, f"{answer!r} is none of {_listed(letters)}.")
        why = because if answer == right else wrong[answer]
        return Verdict(answer == right, why[0].upper() + why[1:])

    solution = more.pop("solution", f"({right}) {because}")
    return Question(judge, solution, choices=letters, truth=right, **more)


@dataclass
class _Learner:
    """What was predicted and got right since the notebook started."""

    predicted: dict[str, str] = field(default_factory=dict)
    right: dict[str, bool] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)


_LEARNER = _Learner()


def predict(name: str, answer: Any) -> None:
    """Note a prediction of the question of this name; whether it is right is not said: run it."""
    question, answer = _question(name), _plain(answer)
    if _is_blank(answer):
        which = f": one of {_listed(question.choices)}" if question.choices else ""
        _say(f"Write your prediction in place of the dots{which}.")
    elif question.choices and answer not in question.choices:
        _say(f"{answer!r} is none of {_listed(question.choices)}. Choose one of them.")
    elif question.listed and not _lists(answer, question.listed):
        _say(f"Give {question.listed} different numbers in square brackets, as [1, 2, ...].")
    else:
        _LEARNER.predicted[name] = str(answer)
        _say(f"Noted: {answer}. Go on, and see.")


def check(name: str, answer: Any) -> None:
    """Say whether an answer (letter, number, table) is right, and why, or what is wrong with it."""
    question, answer = _question(name), _plain(answer)
    if not _has_predicted(name):
        return
    if _is_blank(answer):
        _say("Put your answer in place of the dots.")
        return
    if question.numeric and not isinstance(answer, Real):
        given = "a letter or a word" if isinstance(answer, str) else "several values"
        _say(f"Not yet: this asks for one number, computed or read; you gave {given}.")
        return
    found = question.judge(answer)
    _LEARNER.right[name] = found.right
    _say(("Right. " if found.right else "Not yet. ") + found.why)
    predicted = _LEARNER.predicted.get(name)
    if found.right and question.truth and predicted:
        same = predicted == question.truth
        words = "as it turned out" if same else f"and it is ({question.truth})"
        _say(f"You predicted ({predicted}), {words}.")


def hint(name: str) -> None:
    """The next hint; each call tells more."""
    question = _question(name)
    told = _LEARNER.hints.get(name, 0)
    if told < len(question.hints):
        _LEARNER.hints[name] = told + 1
        _say(f"Hint {told + 1} of {len(question.hints)}: {question.hints[told]}")
    else:
        _say(f'No more hints. solution("{name}") tells it, once you have predicted.')


def solution(name: str) -> None:
    """The answer, with the reason; only after a prediction."""
    question = _question(name)
    if _has_predicted(name):
        _say(f"Solution: {question.solved()}")


def progress() -> dict[str, bool]:
    """Question to whether the last answer was right, of those checked since the start."""
    return dict(_LEARNER.right)


def _has_predicted(name: str) -> bool:
    first = _question(name).after or name
    if first in _LEARNER.predicted:
        return True
    asked = _question(first)
    what = f"one of {_listed(asked.choices)}" if asked.choices else f"{asked.listed} numbers"
    _say(f'First predict: predict("{first}", ...) with {what}. A wrong guess costs nothing.')
    return False


def _plain(answer: Any) -> Any:
    """A letter as it is meant: (C) is c."""
    short = answer.strip().strip("()").lower() if isinstance(answer, str) else ""
    return short if len(short) == 1 else answer


def _is_blank(answer: Any) -> bool:
    """Whether the dots are still there, alone or in a list."""
    inside = answer if isinstance(answer, list | tuple) else [answer]
    return any(part is ... for part in inside)


def _lists(answer: Any, count: int) -> bool:
    """Whether an answer is a list of so many different values."""
    return isinstance(answer, list | tuple | set) and len({str(x) for x in answer}) == count


def _question(name: str) -> Question:
    from fairdiff_lib.workshop.questions import QUESTIONS

    if name not in QUESTIONS:
        raise InputError(f"unknown question {name!r}; known: {', '.join(QUESTIONS)}")
    return QUESTIONS[name]


def _listed(letters: tuple[str, ...]) -> str:
    return ", ".join(f'"{letter}"' for letter in letters)


def _say(words: str) -> None:
    print(textwrap.fill(words, WIDTH))
