"""LiveCodeBench (Jain et al. 2024, arXiv 2403.07974): competition problems, by programs or functions.

Each test runs the program anew in the sandbox, and its output is compared outside, where the program cannot
see what is expected.
"""

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.responses.programs import answering_block
from jax_sft.responses.sandbox import ProgramLimits, Ran, run
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.code import ANSWER_LENGTH, UNANSWERED, Functions
from jax_sft.tasks.protocols import asked
from jax_sft.tasks.tables import table, text
from jax_sft.tasks.task import register, user

_REMEDY = (
    "join test.jsonl and test2.jsonl of the data set livecodebench/code_generation_lite (release_v2) there"
)
_LIMITS = ProgramLimits(seconds=6.0, wall_seconds=20.0)
_INSTRUCTION = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will "
    "generate a correct Python program that matches the specification and passes all tests."
)
_WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code "
    "within delimiters."
)
_WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on "
    "the sample inputs). Enclose your code within delimiters as follows. Ensure that when the python program "
    "runs, it reads the inputs, runs the algorithm and writes output to STDOUT."
)
# The names that a solution on these sites finds there already.
_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json"),
)
_BEFORE = "\n".join(
    [
        *(f"from {module} import *" for module in [*_MODULES, "builtins", "typing"]),
        f"import {', '.join(_MODULES)}",
        "sys.setrecursionlimit(50_000)",
        "sys.set_int_max_str_digits(50_000)",
    ]
)
_RESULT = "\x1eresult "
_TESTS = {"standard": ("public_test_cases", "private_test_cases"), "paper": ("private_test_cases",)}
_CALL = """
import json as _json, sys as _sys
_call = getattr(Solution(), {name!r}) if "Solution" in globals() else globals()[{name!r}]
_arguments = [_json.loads(_line) for _line in _sys.stdin.read().split("\\n") if _line.strip()]
_sys.stdout.write("\\n" + {mark!r} + _json.dumps(_call(*_arguments)) + "\\n")
"""


@register("livecodebench")
class LiveCodeBench(Functions):
    """Option `instruction`: the line before the question.

    The answer is the last fenced block after the thinking, or all where there is none. Metrics: `accuracy`,
    also for each difficulty; `tests`, the share passed before the first failure; `form`.
    """

    verdict_seconds: ClassVar[float | None] = 1800.0
    public_items: ClassVar[int] = 511
    defaults: ClassVar = {"instruction": _INSTRUCTION}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {question_content, starter_code, public_test_cases, private_test_cases, metadata, …}."""
        instruction = self.options(config)["instruction"]
        items = []
        for where, row in table(config, data_root, "benchmarks/livecodebench_v2.jsonl", _REMEDY):
            name, question = text(row, "question_id", where), text(row, "question_content", where)
            tests = [
                test
                for field in _TESTS[config.protocol]
                for test in _tests(row.get(field), f"{where}: {field}")
            ]
            kinds = {test["testtype"] for test in tests}
            if len(kinds) != 1:
                found = "and ".join(sorted(kinds)) or "no tests"
                raise UsageError(f"{where}: tests must be all stdin or all functional; found {found}")
            function = _function(row, where) if kinds == {"functional"} else ""
            starter = str(row.get("starter_code") or "").rstrip()
            reference = {
                "tests": [[test["input"], test["output"]] for test in tests],
                "function": function,
                "difficulty": str(row.get("difficulty") or ""),
            }
            standard = _prompt(instruction, question, starter)
            prompt = asked(config, standard, next(iter(kinds)), question=question)
            items.append(Item(name, user(prompt), reference))
        return items

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the program passes every test; at the first that it fails, it has failed."""
        shown = visible(completion)
        if shown is None or not shown.strip():
            return UNANSWERED
        tests, function = item.reference["tests"], item.reference["function"]
        block = answering_block(shown)
        code = shown if block is None else block
        passed, readable = 0, True
        for given, wanted in tests:
            if function:
                parts, name = [_BEFORE, code, _CALL.format(name=function, mark=_RESULT)], "solution"
            else:
                parts, name = [_BEFORE, code], "__main__"
            ran = run(parts, given, _LIMITS, name)
            readable = ran.readable
            if not (_returned(ran, wanted) if function else _printed(ran, wanted)):
                break
            passed += 1
        right = float(passed == len(tests))
        metrics = {"accuracy": right, "tests": passed / len(tests), "form": float(readable)}
        if difficulty := item.reference["difficulty"]:
            metrics[f"accuracy_{difficulty}"] = right
        return Verdict(metrics, answered=True, answer=code[:ANSWER_LENGTH])


def _prompt(instruction: str, question: str, starter: str) -> str:
    form, code = (_WITH_STARTER, starter) if starter else (_WITHOUT_STARTER, "# YOUR CODE HERE")
    return (
        f"{instruction}\n\n### Question:\n{question}\n\n### Format: {form}\n```python\n{code}\n```\n\n"
        "### Answer: (use the provided format with backticks)"
    ).strip()


def _printed(ran: Ran, wanted: str) -> bool:
    """Whether the lines are those wanted, but for white space around them and the form of numbers."""
    found_lines = [line.strip() for line in ran.output.decode("utf-8", "replace").strip().split("\n")]
    wanted_lines = [line.strip() for line in wanted.strip().split("\n")]
    return (
        ran.code == 0
        and len(found_lines) == len(wanted_lines)
        and all(
            found == line or (bool(line) and _numbers(found) == _numbers(line) is not None)
            for found, line in zip(found_lines, wanted_lines, strict=True)
        )
    )


def _numbers(line: str) -> list[Decimal] | None:
    try:
        return [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None


def _returned(ran: Ran, wanted: str) -> bool:
    """Whether the function gave what is wanted; tuples count as lists."""
    _, marked, result = ran.output.decode("utf-8", "replace").rpartition(_RESULT)
    try:
        return bool(marked) and ran.finished and json.loads(result) == json.loads(wanted)
    except (ValueError, RecursionError):
        return False


def _function(row: Mapping[str, Any], where: str) -> str:
    """The function that is called, by the row's metadata."""
    metadata = row.get("metadata") or {}
    try:
        name = (json.loads(metadata) if isinstance(metadata, str) else metadata)["func_name"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{where}: functional tests need metadata with func_name") from None
    return str(name)


def _tests(value: Any, where: str) -> list[dict[str, str]]:
    """Tests {input, output, testtype} as a list, as JSON, or as base64 of compressed JSON."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            value = _unpacked(value, where)
    fields = {"input", "output", "testtype"}
    for number, test in enumerate(tests := value or [], start=1):
        if not isinstance(test, dict) or not fields <= set(test):
            raise UsageError(f"{where}: test {number} must have input, output and testtype")
        if test["testtype"] not in ("stdin", "functional"):
            raise UsageError(
                f"{where}: test {number}: testtype must be stdin or functional, not {test['testtype']!r}"
            )
    return list(tests)


def _unpacked(value: str, where: str) -> Any:
    try:
        data = zlib.decompress(base64.b64decode(value, validate=True))
    except (binascii.Error, zlib.error, ValueError):
        raise UsageError(f"{where}: neither JSON nor base64 of compressed JSON") from None
    try:
        return json.loads(data)
    except ValueError:
        pass
    try:  # as published: a pickle of the JSON text
        return json.loads(_TextOnly(io.BytesIO(data)).load())
    except (pickle.UnpicklingError, ValueError, TypeError, EOFError, LookupError, AttributeError) as error:
        raise UsageError(
            f"{where}: a pickle of something else than text, which could run code, or damaged: {error}; "
            "write the tests as JSON"
        ) from None


class _TextOnly(pickle.Unpickler):
    """Reads a pickle that names no function or class; without one, a pickle cannot run anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")
