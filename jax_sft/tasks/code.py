"""HumanEval (Chen et al. 2021, arXiv 2107.03374) and MBPP (Austin et al. 2021, arXiv 2108.07732): functions.

The function is run with the benchmark's own assertions, in the sandbox.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.responses.programs import answering_block, continuation, defines
from jax_sft.responses.sandbox import ProgramLimits, run
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.tables import table, text
from jax_sft.tasks.task import Task, register, user

ANSWER_LENGTH = 20_000
"""Characters of a program that a verdict keeps."""
UNANSWERED = Verdict({"accuracy": 0.0, "form": 0.0}, answered=False)
_HUMANEVAL = "copy data/HumanEval.jsonl.gz there from github.com/openai/human-eval"
_MBPP = "copy mbpp/sanitized-mbpp.json there from github.com/google-research/google-research"
_LIMITS = ProgramLimits(seconds=6.0, wall_seconds=20.0)
_SHOTS = (2, 3, 4)
_EXAMPLES, _TEST = range(1, 11), range(11, 511)  # tasks of MBPP by the split of its paper
_FORM = "Answer with the whole code in one code block."


class Functions(Task):
    """What both share: metrics `accuracy`, and `form`, the share of answers that are Python at all."""

    group: ClassVar[Group] = "reasoning"
    isolated: ClassVar[bool] = True
    runs_code: ClassVar[bool] = True
    verdict_seconds: ClassVar[float | None] = 60.0

    def tested(self, code: str, parts: Sequence[str]) -> Verdict:
        """1 when the parts, which hold the code and then its tests, run to their end."""
        ran = run(parts, limits=_LIMITS, name="solution")
        metrics = {"accuracy": float(ran.finished), "form": float(ran.readable)}
        return Verdict(metrics, answered=True, answer=code[:ANSWER_LENGTH])


@register("humaneval")
class HumanEval(Functions):
    """Option `instruction`: the line before the unfinished function, which stands in a fenced block.

    The answer is the last fenced block after the thinking that defines the function, or else the last one. It
    is run after the prompt, whose imports and helpers it may leave out. Without a block, all that follows the
    thinking is the function, or goes on with its body.
    """

    defaults: ClassVar = {"instruction": f"Complete the following Python function. {_FORM}"}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {task_id, prompt, entry_point, test} of a json-lines file, which may be compressed."""
        instruction = self.options(config)["instruction"]
        items = []
        for where, row in table(config, data_root, "benchmarks/HumanEval.jsonl.gz", _HUMANEVAL):
            fields = ("task_id", "prompt", "entry_point", "test")
            name, prompt, entry, test = (text(row, field, where) for field in fields)
            if not defines(prompt, entry):
                raise UsageError(f"{where}: entry_point {entry!r} is not defined in the prompt")
            asked = f"{instruction}\n\n```python\n{prompt.rstrip()}\n```".strip()
            items.append(Item(name, user(asked), {"prompt": prompt, "entry": entry, "test": test}))
        return items

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the benchmark's `check` accepts the function."""
        shown = visible(completion)
        if shown is None or not shown.strip():
            return UNANSWERED
        prompt, entry = item.reference["prompt"], item.reference["entry"]
        block = answering_block(shown, [entry])
        code = shown if block is None else block
        if not defines(code, entry):
            body = continuation(code) if block is None else code
            parts = [prompt + body]
        else:
            parts = [prompt, code]
        test = f"{item.reference['test']}\ncheck({entry})\n"
        return self.tested(code, [*parts, test])


@register("mbpp")
class MBPP(Functions):
    """Options: `instruction`, before the problem; `shots`, 0 to 3 solved examples before it; `split`.

    The examples are tasks 2, 3 and 4, as in the paper; with them, tasks 1 to 10 are not asked. `split` is
    `all`, or `test`: tasks 11 to 510. The answer is the last fenced block after the thinking that defines a
    function of the tests, or else the last one, or all where there is none (up to [DONE]).
    """

    defaults: ClassVar = {
        "instruction": "You are an expert Python programmer, and here is your task:",
        "shots": 0,
        "split": "all",
    }

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {task_id, prompt, test_list, test_imports} of a JSON or json-lines file."""
        options = self.options(config)
        shots, split = options["shots"], options["split"]
        if not 0 <= shots <= 3:
            raise UsageError(f"benchmark {config.name}: option shots must be 0 to 3, not {shots}")
        if split not in ("all", "test"):
            raise UsageError(f"benchmark {config.name}: option split must be all or test, not {split!r}")
        path = "benchmarks/mbpp_sanitized.json"
        problems = dict(_problem(*row) for row in table(config, data_root, path, _MBPP))
        turns: list[dict[str, str]] = []
        for number in _SHOTS[:shots]:
            if number not in problems:
                raise UsageError(
                    f"benchmark {config.name}: {shots} shots need task {number}, which is absent"
                )
            solved = f"```python\n{problems[number].solution}\n```"
            turns += user(problems[number].question(options["instruction"]))
            turns.append({"role": "assistant", "content": solved})
        return [
            Item(
                f"mbpp-{number}",
                (*turns, *user(problem.question(options["instruction"]))),
                {"tests": problem.tests, "setup": problem.setup},
            )
            for number, problem in problems.items()
            if not (shots and number in _EXAMPLES) and (split == "all" or number in _TEST)
        ]

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when all the assertions hold."""
        shown = visible(completion)
        if shown is None or not shown.strip():
            return UNANSWERED
        tests = "\n".join(item.reference["tests"])
        block = answering_block(shown, set(re.findall(r"\b([A-Za-z_]\w*)\s*\(", tests)))
        code = block if block is not None else shown.partition("[DONE]")[0].replace("[BEGIN]", "")
        return self.tested(code, [code, item.reference["setup"], tests])


@dataclass(frozen=True)
class _Problem:
    """A row of MBPP."""

    text: str
    solution: str
    setup: str
    tests: list[str]

    def question(self, instruction: str) -> str:
        """The prompt of the paper, with its tests; what the answer should look like follows."""
        task = f"{instruction} {self.text.strip()}".strip()
        tests = "\n".join(self.tests)
        return f"{task} Your code should pass these tests:\n\n{tests}\n\n{_FORM}"


def _problem(where: str, row: Mapping[str, Any]) -> tuple[int, _Problem]:
    """A row with its number, from either of the files that there are of MBPP."""
    number, tests = text(row, "task_id", where), row.get("test_list")
    if not number.isdigit():
        raise UsageError(f"{where}: task_id must be a number, not {number!r}")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise UsageError(f"{where}: test_list must be a list of assertions, found {str(tests)[:40]}")
    question = text(row, "text" if "text" in row else "prompt", where)
    setup = "\n".join([*row.get("test_imports", ()), row.get("test_setup_code", "")])
    return int(number), _Problem(question, text(row, "code", where).strip(), setup, tests)
