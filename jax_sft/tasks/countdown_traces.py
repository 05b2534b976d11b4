"""The search for a Countdown answer written out as text: propose, compute, compare, go back, verify.

The search is a real one. A branch is worked through move by move, whatever value appears is compared with the
target, and whichever solution is met first is the answer; the known solution only decides which branch comes
last, so that the search ends. Every equation and every comparison in the text is true.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

LARGEST = 9999  # values beyond this are not pursued, as a person would not


@dataclass(frozen=True)
class Term:
    """A positive whole value, the expression that makes it, and the terms made on the way."""

    value: int
    text: str
    equation: str = ""
    made_before: tuple["Term", ...] = ()

    @staticmethod
    def number(value: int) -> "Term":
        """One of the numbers offered."""
        return Term(value, str(value))

    @property
    def made(self) -> tuple["Term", ...]:
        """The terms to make one after the other to arrive at this one; empty for a number offered."""
        return (*self.made_before, self) if self.equation else ()

    @property
    def equations(self) -> str:
        """The equations that make this term, comma-separated."""
        return ", ".join(term.equation for term in self.made)


def combine(left: Term, operation: str, right: Term) -> Term | None:
    """The term made of two, the larger first; None when the result is not a positive whole number."""
    if (left.value, left.text) < (right.value, right.text):
        left, right = right, left
    if operation == "/" and left.value % right.value:
        return None
    value = {
        "+": left.value + right.value,
        "-": left.value - right.value,
        "*": left.value * right.value,
        "/": left.value // right.value,
    }[operation]
    if not 0 < value <= LARGEST:
        return None
    equation = f"{left.value} {operation} {right.value} = {value}"
    text = f"{_bracketed(left)} {operation} {_bracketed(right)}"
    return Term(value, text, equation, (*left.made, *right.made))


def miniature_trace(numbers: Sequence[int], target: int) -> tuple[str, str]:
    """Trace and answer of the miniature game: what each pair makes with +, - and *; then the target is found.

    The first line is the target. A line `3+6=9:3+6` says a value and, after it, how it was made; the last
    line finds the target among the values. Looking back for a number and copying what follows it is what
    small transformers learn first.
    """
    made: dict[int, str] = {}
    lines: list[str] = []
    for left, right in itertools.combinations(numbers, 2):
        for operation in "+-*":
            first, second = (left, right) if operation != "-" else (max(left, right), min(left, right))
            value = {"+": first + second, "-": first - second, "*": first * second}[operation]
            expression = f"{first}{operation}{second}"
            lines.append(f"{expression}={value}:{expression}\n")
            made.setdefault(value, expression)
    if target not in made:
        raise ValueError(f"no two of {list(numbers)} make {target}")
    return f"{target}\n{''.join(lines)}{target}:{made[target]}\n", made[target]


def search_trace(
    numbers: Sequence[int], target: int, solution: Term, depth: int, verbosity: int, rng: random.Random
) -> tuple[str, str]:
    """Trace and answer of a search for `target` that tries up to `depth` wrong branches at every choice.

    `solution` is reached last, unless the search meets another first; `verbosity` as in CountdownOptions.
    """
    search = _Search(target, depth, verbosity, rng)
    terms = [Term.number(number) for number in numbers]
    search.say(
        f"Numbers {list(numbers)}, target {target}.",
        f"I need to make {target} from {list(numbers)}, using each number at most once.",
        f"Okay, so I have the numbers {list(numbers)} and I need to reach {target}. "
        "Each number may be used at most once, with +, -, * and /. Let me search step by step.",
    )
    found = search.explore(terms, list(solution.made))
    if found is None:
        raise AssertionError("the search missed the solution it was given")
    search.verify(found, numbers)
    return "\n".join(search.lines) + "\n", found.text


def _bracketed(term: Term) -> str:
    return f"({term.text})" if term.equation else term.text


def _moves(terms: list[Term]) -> list[tuple[Term, list[Term]]]:
    """Every combination of two terms, once for each expression, with the terms that it leaves."""
    moves, seen = [], set()
    for i, j in itertools.combinations(range(len(terms)), 2):
        rest = [term for k, term in enumerate(terms) if k not in (i, j)]
        for operation in "+-*/":
            made = combine(terms[i], operation, terms[j])
            if made is None or made.text in seen:
                continue
            seen.add(made.text)
            moves.append((made, [made, *rest]))
    return moves


class _Search:
    """The text so far, and the choices that shape it."""

    def __init__(self, target: int, depth: int, verbosity: int, rng: random.Random) -> None:
        self.target, self.depth, self.verbosity, self.rng = target, depth, verbosity, rng
        self.lines: list[str] = []

    def say(self, *by_verbosity: str) -> None:
        """Add a line in the wording of the verbosity; an empty wording adds none."""
        if text := by_verbosity[self.verbosity]:
            self.lines.append(text)

    def explore(self, terms: list[Term], path: list[Term]) -> Term | None:
        """Search below these terms; `path` holds the known right terms to make from here, or is empty."""
        if len(terms) == 2:
            return self.try_all(terms)
        moves = _moves(terms)
        right = next((move for move in moves if path and move[0].text == path[0].text), None)
        wrong = [move for move in moves if right is None or move[0].equation != right[0].equation]
        # Nearer values look more promising, as they do to a person; some chance keeps traces different.
        wrong.sort(key=lambda move: abs(move[0].value - self.target) * self.rng.uniform(0.5, 2))
        chosen = wrong[: self.depth if right else max(1, self.depth)]
        for tried, (made, left) in enumerate([*chosen, *([right] if right else [])]):
            if tried:
                self.back(terms)
            self.propose(made, left)
            if made.value == self.target:
                return made
            on_path = right is not None and made is right[0]
            if found := self.explore(left, path[1:] if on_path else []):
                return found
        return None

    def propose(self, made: Term, left: list[Term]) -> None:
        """Say the move, and what it leaves or that it is the target."""
        equation = made.equation
        opening = self.rng.choice(["Try", "Let me try", "What about", "Next, try", "Maybe"])
        doubt = self.rng.choice(["", "", "", f" Let me check: {_check(equation)}.", " That is right."])
        if made.value == self.target:
            self.say(f"{equation} yes", f"{opening} {equation}. That is {self.target}!", f"Wait, {equation}!")
            return
        values = ", ".join(str(term.value) for term in left)
        self.say(
            f"{equation} [{values}]",
            f"{opening} {equation}, which leaves [{values}].",
            f"{opening} {equation}.{doubt} Then I would have [{values}] left to make {self.target}.",
        )

    def try_all(self, terms: list[Term]) -> Term | None:
        """With two terms left, work out every result."""
        for made, _ in _moves(terms):
            equation = made.equation
            if made.value == self.target:
                self.say(f"{equation} yes", *[f"{equation}, that is {self.target}!"] * 2)
                return made
            difference = abs(made.value - self.target)
            word = "above" if made.value > self.target else "below"
            self.say(
                f"{equation} no",
                f"{equation}, not {self.target}.",
                f"{equation}, which is {difference} {word} {self.target}.",
            )
        return None

    def back(self, terms: list[Term]) -> None:
        """Say that the branch is left, and from where the search goes on."""
        values = ", ".join(str(term.value) for term in terms)
        opening = self.rng.choice(["Wait, that does not work.", "Hmm, no.", "That leads nowhere."])
        self.say(
            f"back [{values}]",
            f"{opening} Back to [{values}].",
            f"{opening} I have not reached {self.target}, so let me go back to [{values}] and try again.",
        )

    def verify(self, found: Term, numbers: Sequence[int]) -> None:
        """Repeat the equations of the answer and the numbers that it uses."""
        steps = found.equations
        self.say(
            f"check {steps}",
            f"Let me verify: {steps}. Only the numbers {list(numbers)} are used, each at most once.",
            f"Let me double-check the expression {found.text}: {steps}. The result is {self.target}, only "
            f"the numbers {list(numbers)} are used, and each at most once. So the answer is {found.text}.",
        )


def _check(equation: str) -> str:
    """The inverse equation, as one checks a result by hand."""
    left, operation, right, _, value = equation.split()
    inverse = {"+": "-", "-": "+", "*": "/", "/": "*"}[operation]
    return f"{value} {inverse} {right} = {left}"
