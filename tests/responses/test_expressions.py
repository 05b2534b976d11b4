"""The parser and the checker against Python's own arithmetic on fractions, and on the forms models write."""

import ast
import itertools
import random
from fractions import Fraction

import pytest

from jax_sft.responses.expressions import LONGEST, check_answer, parse_expression


def independent_value(text: str) -> Fraction:
    """Python's grammar, walked with fractions: another parser than ours."""

    def value(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Expression):
            return value(node.body)
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp):
            assert isinstance(node.op, ast.USub)
            return -value(node.operand)
        assert isinstance(node, ast.BinOp)
        left, right = value(node.left), value(node.right)
        if isinstance(node.op, ast.Div):
            return left / right
        return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}[type(node.op)]

    return value(ast.parse(text, mode="eval"))


def random_expression(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return str(rng.randint(0, 30))
    left, right = random_expression(rng, depth - 1), random_expression(rng, depth - 1)
    space = rng.choice(["", " "])
    text = f"{left}{space}{rng.choice('+-*/')}{space}{right}"
    if rng.random() < 0.5:
        text = f"({text})"
    return f"-{text}" if rng.random() < 0.1 else text


def test_values_equal_those_of_another_parser() -> None:
    rng = random.Random(0)
    zero_divisions = 0
    for _ in range(2000):
        text = random_expression(rng, 4)
        try:
            expected = independent_value(text)
        except ZeroDivisionError:
            zero_divisions += 1
            with pytest.raises(ValueError, match="division by zero"):
                parse_expression(text)
        else:
            assert parse_expression(text).value == expected, text
    assert zero_divisions > 10


def test_checker_agrees_with_brute_force_over_all_small_expressions() -> None:
    """Every (a o b) o c and a o (b o c) over all orders of three numbers, against every target."""
    numbers = (2, 3, 8)
    for a, b, c in itertools.permutations(numbers):
        for first, second in itertools.product("+-*/", repeat=2):
            for text in (f"({a}{first}{b}){second}{c}", f"{a}{first}({b}{second}{c})"):
                try:
                    value = independent_value(text)
                except ZeroDivisionError:
                    continue
                for target in range(1, 50):
                    assert check_answer(text, numbers, target) == (value == target), (text, target)


@pytest.mark.parametrize(
    "text",
    [
        "(6-2)*(8+1)",
        "(6 − 2) × (8 + 1)",
        "(6 – 2)·(8＋1)",
        r"(6-2) \times (8+1) = 36",
        r"\left(6 - 2\right) \cdot (8 + 1)",
        "36 = (6-2)*(8+1)",
        "[6-2]*[8+1]",
        "$(6-2)*(8+1)$.",
        "(6-2)*(8+1) = 4*9 = 36",
        "(6-2)(8+1)",
        "(6-2) x (8+1)",
        "(6-2)X(8+1)",
        "(6.0-2)*(8+1.00)",
        "(6-2)*(8+1) = 36.0",
        r"(6-2)*(8+1) = 36 \text{ (target)}",
        r"\displaystyle (6-2)*(8+1) ✓",
        r"\mathbf{(6-2)*(8+1)}",
        "(6-2)*(8+1).",
    ],
)
def test_forms_of_a_right_answer(text: str) -> None:
    assert check_answer(text, [1, 2, 6, 8, 50], 36)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "36",
        "(6-2)*(8+1) = 35",
        "6*6",
        "(6-2)*9",
        "2*6*8-60",
        "6**2",
        "6//2",
        "(6-2)*(8+1",
        "__import__('os').getcwd()",
        "6/0",
        "1e3",
        "٣*2*6",
        "(" * 200 + "6" + ")" * 200,
        "(" * LONGEST,
        r"\frac823",
        r"\text{6*6 apples}",
        "6" * 13,
        "the answer is (6-2)*(8+1)",
        r"\text{the answer is } (6-2)*(8+1)",
        "6(2+8/2)",
        "(6-2)*(8.5+0.5)",
        "(6-2)*8+1, 36",
        "x(6-2)(8+1)",
        r"6\frac{8}{2}+1",
        "(6-2)\0*(8+1)",
    ],
)
def test_wrong_answers_and_other_text(text: str) -> None:
    assert not check_answer(text, [1, 2, 6, 8], 36)


def test_thousands_may_be_set_apart() -> None:
    for text in (r"1\,000+5", "1{,}000+5", "1000+5"):
        assert check_answer(text, [1000, 5], 1005)
    assert not check_answer(r"1\,000+5", [1, 5], 1005)


def test_fractions_on_the_way_are_exact() -> None:
    assert check_answer("8/(3-8/3)", [3, 3, 8, 8], 24)
    assert check_answer(r"\frac{8}{4} * 12", [4, 8, 12], 24)
    assert not check_answer("7/3", [7, 3], 2)


@pytest.mark.parametrize(
    "text",
    [
        r"\frac{\frac{8}{2}}{2}+3",
        r"\frac{8}{\dfrac{2\times 2}{1}}+3",
        r"\frac{8}{2}/2+3",
        r"\frac82/2+3",
        r"\frac8{2}/2+3",
        r"\text{8/2/2+3}",
        r"\text{\frac{8}{2}/2+3 = 5}",
    ],
)
def test_fractions_in_latex(text: str) -> None:
    assert check_answer(text, [1, 2, 2, 3, 8], 5)
    assert not check_answer(text, [1, 2, 3, 8], 5)


def test_rules_of_the_miniature_game() -> None:
    assert check_answer("5*8", [3, 5, 8], 40, uses=2, operations="+-*")
    assert not check_answer("8*(3+5)-24", [3, 5, 8, 24], 40, uses=2)
    assert not check_answer("8/2", [8, 2], 4, uses=2, operations="+-*")


def test_text_beyond_the_limit_is_refused_without_work() -> None:
    assert not check_answer("1+" * LONGEST + "1", [1], LONGEST + 1)
