"""The command line: what each verb passes on, and how it fails."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jax_sft.cli.main import main
from jax_sft.config import BenchmarkConfig, DataConfig, ModelConfig, Run, Study, replace
from jax_sft.data.sources import load_rows
from jax_sft.errors import JaxSftError
from jax_sft.files import write_json
from jax_sft.models.families import model_config_from_huggingface
from jax_sft.models.weights.read import pretrained_config
from jax_sft.study.document import run_to_json, study_to_json
from jax_sft.study.folder import run_folder
from jax_sft.tasks.task import load_items
from tests.random_models import random_config, write_model

pytestmark = pytest.mark.short

STUDY = Study(
    name="small",
    runs=(Run(name="base", epochs=2.0), Run(name="cot", init="run:base")),
    benchmarks=(BenchmarkConfig(name="game", task="countdown", group="in_domain"),),
)


@pytest.fixture
def study(tmp_path: Path) -> str:
    """The folder of a written study."""
    folder = tmp_path / "runs" / "small"
    write_json(folder / "study.json", {"study": study_to_json(STUDY)})
    for run in STUDY.runs:
        write_json(folder / run.name / "run.json", {"run": run_to_json(run)})
    return str(folder)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the verbs passed on, instead of doing it."""
    made: list[tuple[Any, ...]] = []
    for place in (
        "training.loop.train",
        "evaluation.sweep.sweep",
        "evaluation.score.score",
        "analysis.report.report.write_report",
    ):
        name = place.rpartition(".")[2]
        monkeypatch.setattr(f"jax_sft.{place}", lambda *args, name=name: made.append((name, *args)))
    return made


def test_train_applies_its_flags_to_each_chosen_run(study: str, calls: list[Any], tmp_path: Path) -> None:
    assert (
        main(["train", study, "--runs", "cot", "--root", "gs://b/x", "--seed", "7", "--data-root", "d"]) == 0
    )
    ((name, passed, run),) = calls
    assert (name, run.name, run.seed) == ("train", "cot", 7)
    assert (passed.root, passed.data_root) == ("gs://b/x", "d")
    assert passed.runs == (STUDY.runs[0], run)
    calls.clear()
    assert main(["train", study, "--optimizer.learning-rate", "0.5"]) == 0
    assert [(run.name, run.epochs, run.optimizer.learning_rate) for _, _, run in calls] == [
        ("base", 2.0, 0.5),
        ("cot", 1.0, 0.5),
    ]
    assert calls[0][1].root == str(tmp_path / "runs")


def test_sweep_score_and_report_pass_on_what_was_chosen(study: str, calls: list[Any]) -> None:
    chosen = ["--steps", "0, 10", "--benchmarks", "game", "--evaluation.slots", "3", "--worker", "1/4"]
    assert main(["sweep", study, *chosen]) == 0
    assert main(["score", study, "--runs", "base"]) == 0
    assert main(["report", study, "--root", "there"]) == 0
    (_, swept, *sweep_units, options), (_, _, *score_units), (_, reported) = calls
    assert swept.evaluation.slots == 3
    assert (options.worker, options.follow, options.follow_timeout) == ("1/4", False, 0)
    assert sweep_units == [["base", "cot"], [0, 10], ["game"]]
    assert score_units == [["base"], None, None]
    assert reported.root == "there"


def test_runs_are_chosen_by_patterns(study: str, calls: list[Any]) -> None:
    assert main(["train", study, "--runs", "c*"]) == 0
    assert main(["score", study, "--runs", "*o*,b?se", "--benchmarks", "g*"]) == 0
    (_, _, run), (_, _, *units) = calls
    assert run.name == "cot"
    assert units == [["base", "cot"], None, ["game"]]


def test_a_report_of_chosen_runs_has_those_that_they_start_from(calls: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from jax_sft.config import *\n"
        "RUNS = (Run(name='base'), Run(name='other'), Run(name='cot', init='run:base'))\n"
        "def study(): return Study(name='own', runs=RUNS)\n"
    )
    assert main(["report", str(file), "--runs", "c*"]) == 0
    assert [run.name for run in calls[0][1].runs] == ["base", "cot"]


def test_a_model_left_out_is_that_of_the_start_weights(calls: list[Any], tmp_path: Path) -> None:
    weights, other = (str(write_model(tmp_path / str(number), random_config(number))) for number in (0, 4))
    file = tmp_path / "own.py"
    file.write_text(
        "from jax_sft.config import *\n"
        f"FIRST = Run(name='first', init={weights!r}, data=DataConfig(rows=64))\n"
        "SECOND = Run(name='second', init='run:first')\n"
        "THIRD = Run(name='third', model=ModelConfig(head_dim=8))\n"
        "def study(): return Study(name='own', runs=(FIRST, SECOND, THIRD))\n"
    )
    of_weights, of_other = (model_config_from_huggingface(random_config(number)) for number in (0, 4))
    assert main(["train", str(file), "--runs", "second", "--seed", "1"]) == 0
    assert main(["train", str(file), "--runs", "first", "--model.max-positions", "99"]) == 0
    assert main(["train", str(file), "--runs", "first", "--init", other]) == 0
    assert [run.model for _, _, run in calls] == [
        of_weights,
        replace(of_weights, max_positions=99),
        of_other,
    ]
    assert [run.model for run in calls[0][1].runs] == [of_weights, of_weights, ModelConfig(head_dim=8)]
    assert main(["sweep", str(file), "--runs", "first"]) == 0
    assert calls[-1][1].run("first").model == of_weights
    # What needs no model does not ask for it.
    (tmp_path / "0" / "config.json").unlink()
    assert main(["report", str(file)]) == 0
    assert main(["train", str(file), "--runs", "third"]) == 0
    assert main(["train", str(file), "--runs", "second"]) == 2


def test_quickstart_trains_sweeps_and_reports_in_this_order(calls: list[Any], tmp_path: Path) -> None:
    assert main(["quickstart", "--root", str(tmp_path)]) == 0
    verbs = [call[0] for call in calls]
    assert verbs == ["train"] * (len(verbs) - 2) + ["sweep", "write_report"]
    assert {call[1].root for call in calls} == {str(tmp_path)}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tran"], "unknown command 'tran'; did you mean train?"),
        (["train"], "write jax-sft train STUDY, then the flags"),
        (["train", "--seed", "1"], "write jax-sft train STUDY, then the flags"),
        (["train", "nowhere.py"], "nowhere.py: no such study"),
        (["train", "STUDY", "--runs", "base,cat"], "--runs: the study has no run 'cat'; did you mean cot?"),
        (["train", "STUDY", "--seed", "x"], "--seed: invalid literal"),
        (["train", "STUDY", "--data.batch-size", "0"], "runs.base.data.batch_size: 0 is not"),
        (["train", "STUDY", "--step", "0"], "unknown flag --step"),
        (["sweep", "STUDY", "--steps", "0,last"], "--steps: 'last' is not a step"),
        (
            ["sweep", "STUDY", "--benchmarks", "golf"],
            "--benchmarks: the study has no benchmark 'golf'; it has game",
        ),
        (
            ["sweep", "STUDY", "--evaluation.slot", "1"],
            "unknown flag --evaluation.slot; did you mean --evaluation.slots",
        ),
        (["score", "STUDY", "more"], "unexpected argument 'more'"),
        (["export", "FOLDER"], "write jax-sft export RUN_FOLDER STEP TARGET"),
        (["export", "STUDY/cot", "ten", "out"], "STEP: 'ten' is not a step; write one number such as 10"),
        (["export", "STUDY/cot", "", "out"], "STEP: '' is not a step; write one number"),
        (["export", "STUDY/cot", "10,20", "out"], "STEP: '10,20' is not a step; write one number"),
        (["export", "STUDY/cot", "last", "out"], "STEP: 'last' is not a step; write one number"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    args: list[str], message: str, study: str, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([arg.replace("STUDY", study) for arg in args]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert calls == []


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (JaxSftError("the disk\nis full"), 1, "error: the disk is full\n"),
        (ValueError("odd"), 1, "error: ValueError: odd; run again with --traceback to see where\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "there/state"),
            1,
            "error: there/state: no space left on device; make room and give the same command again\n",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "rows"), 1, "error: rows: is a directory\n"),
        (IsADirectoryError("Cannot overwrite: rows"), 1, "error: Cannot overwrite: rows\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_is_one_line_unless_the_traceback_is_asked_for(
    error: BaseException,
    code: int,
    line: str,
    study: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("jax_sft.training.loop.train", fail)
    assert main(["train", study]) == code
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1
    if isinstance(error, Exception):
        assert main(["train", study, "--traceback"]) == code
        assert "in fail\n    raise error" in capsys.readouterr().err


def test_help_lists_the_verbs_and_the_flags_with_the_studys_values(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for verb in ("train", "sweep", "score", "report", "export", "quickstart"):
        assert f"jax-sft {verb}" in overview
        assert main([verb, "--help"]) == 0
        assert f"usage: jax-sft {verb}" in capsys.readouterr().out
    assert main(["train", study, "--help"]) == 0
    assert "Passes over the data. (default: 2.0)" in capsys.readouterr().out


def test_help_is_quick_because_it_loads_no_jax() -> None:
    code = "import sys; from jax_sft.cli import main; main.main(['train', '-h']); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_a_wave_is_home_in_every_path(
    calls: list[Any], study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1", "response": "2"}\n')
    (tmp_path / "items.jsonl").write_text('{"question": "1 + 1", "answer": "#### 2"}\n')
    weights = write_model(tmp_path / "weights", random_config(0))
    assert main(["train", "~/runs/small", "--runs", "cot", "--root", "~/there"]) == 0
    assert run_folder(calls[0][1], "cot") == tmp_path / "there" / "small" / "cot"
    assert pretrained_config("~/weights") == pretrained_config(str(weights))
    assert len(load_rows(DataConfig(source="rows.jsonl"), 0, "~")) == 1
    assert len(load_rows(DataConfig(source="~/rows.jsonl"), 0, "elsewhere")) == 1
    assert len(load_items(BenchmarkConfig("gsm8k", path="~/items.jsonl"), "elsewhere")) == 1
    monkeypatch.setattr("jax_sft.checkpoints.export.export_snapshot", lambda *args: calls.append(args))
    assert main(["export", "~/runs/small/base", "10", "~/exported"]) == 0
    assert calls[-1][2:] == (10, tmp_path / "exported")
