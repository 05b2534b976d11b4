"""Any generator of reasoning-gym by name (arXiv 2505.24760), with its own scorer."""

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.machine import run_apart
from jax_sft.responses import answers
from jax_sft.responses.answers import within
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import Task, column, exact, register, user

_UNUSABLE = {
    "composite": "it is a mixture of others: make one benchmark for each",
    "game_of_life_halting": "its scorer accepts any answer",
}
_TUPLES = ("arc_agi", "rearc")  # their scorers compare with tuples, which JSON turns into lists
_WRAPPED = re.compile(
    r"\s*(?:\\(?:boxed|text\w*)\s*\{(.*)\}|\*\*(.*)\*\*|\$+(.*?)\$+|`+(?:\w*\n)?(.*?)`+|(.*)\.)\s*", re.DOTALL
)
# What scorers raise on answers that they cannot read.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    SyntaxError,
    TypeError,
    ValueError,
)


@register("reasoning_gym")
class ReasoningGym(Task):
    """Options: `generator`, its name; `size`, the items before `limit`; `seed`; others go to the generator.

    Accuracy is 1 from a score of 0.99 on: some scorers give a little to wrong answers.
    """

    group: ClassVar[Group] = "reasoning"
    isolated: ClassVar[bool] = True
    free_options: ClassVar[bool] = True
    defaults: ClassVar = {
        "generator": "",
        "size": 200,
        "seed": 0,
        "instruction": "Reason step by step, and give the final answer between <answer> and </answer>.",
    }

    def warm(self) -> None:
        """Import reasoning-gym."""
        _reasoning_gym()

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """Items made by the generator, in a process of its own whose hash seed is fixed.

        Three generators order sets, so that their items would change from process to process otherwise.
        """
        options: dict[str, Any] = self.options(config)
        name, instruction = options.pop("generator"), options.pop("instruction")
        where = f"benchmark {config.name}: reasoning-gym generator {name!r}"
        if name in _UNUSABLE:
            raise UsageError(f"{where} cannot be used: {_UNUSABLE[name]}")
        size, seed = options.pop("size"), options.pop("seed")
        request = {"name": name, "size": size, "seed": seed, **options}
        return [
            Item(
                f"{name}-{number}",
                user(f"{entry['question']}\n\n{instruction}".strip()),
                {"generator": name, "options": options, "entry": entry},
            )
            for number, entry in enumerate(_generate(where, request))
        ]

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """There is what the generator's scorer needs."""
        for name in ("generator", "options", "entry"):
            column(reference, name, where)

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """Judge the last <answer>, else the last box, all that is said if it is right, or what is stated."""

        def right(answer: str) -> bool:
            return any(_scores(item.reference, variant) for variant in _unwrapped(answer))

        forms: list[answers.Form] = [
            (answers.TAG, within(answers.tagged, _filled)),
            (answers.BOX, within(answers.boxes, _filled)),
            ("text", lambda text: text.strip() if text.strip() and right(text.strip()) else None),
            (answers.STATED, within(answers.stated, _filled)),
        ]
        found = answers.find(visible(completion) or "", forms)
        return exact(found, bool(found and right(found.text)))


def _filled(answer: str) -> str | None:
    return answer.strip() or None


def _unwrapped(answer: str) -> Iterator[str]:
    """The answer as it stands, and then without one box, mark or full stop around it after another."""
    yield answer
    while match := _WRAPPED.fullmatch(answer):
        answer = next(part for part in match.groups() if part is not None).strip()
        yield answer


def _scores(reference: dict[str, Any], answer: str) -> bool:
    """Whether the generator's own scorer takes an answer."""
    entry = reference["entry"]
    if reference["generator"] in _TUPLES:
        entry = {**entry, "metadata": _as_tuples(entry["metadata"])}
    dataset = _dataset(reference["generator"], json.dumps(reference["options"], sort_keys=True))
    try:
        return float(dataset.score_answer(answer, entry)) >= 0.99
    except _UNREADABLE:
        return False


def _generate(where: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries {question, answer, metadata} made in another process; UsageError with the generator's words."""
    environment = {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
    ended = run_apart(__name__, (), environment, given=json.dumps(request))
    if ended.code:
        raise UsageError(f"{where}: {ended.last_words}")
    entries = json.loads(ended.output.splitlines()[-1])
    assert isinstance(entries, list)
    return entries


def _reasoning_gym() -> ModuleType:
    """The library, imported late because it takes more than a second.

    It imports pycosat, which has to be compiled, for the zebra puzzles alone; without a compiler a stand-in
    takes its place that says so when it is used.
    """
    if importlib.util.find_spec("pycosat") is None:
        stand_in = ModuleType("pycosat")
        vars(stand_in)["itersolve"] = _no_pycosat
        sys.modules.setdefault("pycosat", stand_in)
    return importlib.import_module("reasoning_gym")


def _no_pycosat(*_: Any, **__: Any) -> Any:
    raise UsageError("this generator needs pycosat: install a C compiler, then pip install pycosat")


@lru_cache(maxsize=8)
def _dataset(name: str, options: str) -> Any:
    return _reasoning_gym().create_dataset(name, size=1, seed=0, **json.loads(options))


def _as_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_as_tuples(part) for part in value)
    return {key: _as_tuples(part) for key, part in value.items()} if isinstance(value, dict) else value


def main() -> None:
    """Read a request from standard input and write the entries as one line of JSON."""
    request = json.loads(sys.stdin.read())
    dataset = _reasoning_gym().create_dataset(request.pop("name"), **request)
    print(json.dumps([dataset[index] for index in range(request["size"])]))


if __name__ == "__main__":
    main()
