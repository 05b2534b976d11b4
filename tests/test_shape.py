"""How large files and functions may grow, and that some names are spelt in one file alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.short

PACKAGE = Path(__file__).resolve().parent.parent / "jax_sft"
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 320, 60, 7
SPELT_ONCE = {
    "run.json": "study/folder.py",
    "completions.jsonl": "study/folder.py",
    "scores.json": "study/folder.py",
    "evals": "study/folder.py",
    "math_verify": "responses/mathematics.py",
    "</think>": "responses/thinking.py",
}
"""Names with the one file of the package whose code may hold them; docstrings may speak of them anywhere."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def trees() -> Iterator[tuple[str, str, ast.Module]]:
    """(path within the package, text, syntax tree) of every file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        yield path.relative_to(PACKAGE).as_posix(), text, ast.parse(text)


def parameters(function: Function) -> int:
    """How many a caller may give; a method's own object is none of them."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def too_large(name: str, text: str, tree: ast.Module) -> Iterator[str]:
    """What of a file is larger than it may be, in words."""
    if (lines := len(text.splitlines())) > MOST_LINES:
        yield f"{name}: {lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, Function):
            if (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES:
                yield f"{name}, {node.name}: {lines} lines"
            if (count := parameters(node)) > MOST_PARAMETERS:
                yield f"{name}, {node.name}: {count} parameters"


def code_names(tree: ast.Module) -> Iterator[str]:
    """Texts and imported modules of the code; a text that stands alone is documentation."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_files_and_functions_stay_small() -> None:
    assert [fault for file in trees() for fault in too_large(*file)] == []


def test_what_is_too_large_is_found() -> None:
    names = ", ".join(f"p{number}" for number in range(8))
    long = f"class C:\n    def f(self, {names}):\n" + "        x = 1\n" * 60
    assert list(too_large("a.py", long, ast.parse(long))) == ["a.py, f: 61 lines", "a.py, f: 8 parameters"]
    assert list(too_large("a.py", "x = 1\n" * 321, ast.parse(""))) == ["a.py: 321 lines"]


@pytest.mark.parametrize(("name", "place"), SPELT_ONCE.items())
def test_a_name_is_spelt_in_one_file(name: str, place: str) -> None:
    assert [file for file, _, tree in trees() if any(name in text for text in code_names(tree))] == [place]
