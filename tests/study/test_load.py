"""Studies in and out of files: round trips, errors that name file and field, and differences."""

import json
import sys
from pathlib import Path

import pytest

from jax_sft.config import BenchmarkConfig, DataConfig, OptimizerConfig, Run, Sampling, Study, replace
from jax_sft.errors import UsageError
from jax_sft.files import write_json
from jax_sft.study.document import differences, run_from_json, run_to_json, study_from_json, study_to_json
from jax_sft.study.load import load_study
from tests.buckets.server import BucketServer

pytestmark = pytest.mark.short

STUDY = Study(
    name="small",
    runs=(
        Run(
            name="base", data=DataConfig(rows=64, options={"depth": 2, "traces": True, "p": 0.5, "s": "True"})
        ),
        Run(name="cot", init="run:base@3", epochs=1.5, optimizer=OptimizerConfig(learning_rate=1e-4)),
    ),
    benchmarks=(
        BenchmarkConfig(name="game", task="countdown", group="in_domain", samples=4, sampling=Sampling(0.7)),
    ),
)

FILE = """
from jax_sft.config import Run, Study

def study():
    return Study(name="small", runs=({body},))
"""


def study_file(folder: Path, body: str) -> Path:
    file = folder / "mine.py"
    file.write_text(FILE.format(body=body))
    return file


def test_a_study_survives_json() -> None:
    text = json.dumps(study_to_json(STUDY))
    again = study_from_json(json.loads(text))
    assert again == STUDY
    options = again.runs[0].data.options
    assert [type(value) for value in options.values()] == [int, bool, float, str]
    assert run_from_json(run_to_json(STUDY.runs[1])) == STUDY.runs[1]


def test_stop_texts_survive_json_and_an_older_study_has_no_loops_cut() -> None:
    stopping = replace(STUDY.benchmarks[0], sampling=Sampling(stop=("\n\n", "é")))
    written = study_to_json(replace(STUDY, benchmarks=(stopping,)))
    assert study_from_json(written).benchmarks == (stopping,)
    del written["evaluation"]["loop_tokens"]
    assert study_from_json(written).evaluation.loop_tokens == 0


def test_a_study_may_import_its_neighbours(tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "shared.py").write_text(f"NAME = {name!r}\n")
        file = study_file(folder, "Run(name=shared.NAME)")
        file.write_text(f"import shared\n{file.read_text()}")
        path, modules = sys.path[:], set(sys.modules)
        # Twice, and a neighbour of the same name beside another study: each finds its own.
        assert [load_study(file).runs[0].name for _ in range(2)] == [name, name]
        assert (sys.path, set(sys.modules)) == (path, modules)
        assert sorted(entry.name for entry in folder.iterdir()) == ["mine.py", "shared.py"]
    (tmp_path / "first" / "shared.py").write_text("raise ValueError('odd')\n")
    with pytest.raises(UsageError, match=r"mine\.py, line 1: ValueError: odd"):
        load_study(tmp_path / "first" / "mine.py")
    assert (sys.path, set(sys.modules)) == (path, modules)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("runs", 1, "optimizer", "learning_rat"), 1, "here: runs.cot.optimizer.learning_rat: unknown field"),
        (("runs", 1, "epochs"), "two", 'here: runs.cot.epochs: expected a valid number, found "two"'),
        (("runs", 0, "data", "rows"), 1.5, "here: runs.base.data.rows: expected a valid integer, found 1.5"),
        (("benchmarks", 0, "group"), "sport", "here: benchmarks.game.group: expected 'in_domain'"),
        (("runs",), 3, "here: runs: expected a valid"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(path: tuple, value: object, message: str) -> None:
    document = study_to_json(STUDY)
    *way, last = path
    inner = document
    for key in way:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(UsageError) as error:
        study_from_json(document, where="here")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_close_field_is_suggested_and_a_missing_one_named() -> None:
    with pytest.raises(
        UsageError, match=r"optimizer\.learning_rat: unknown field; did you mean learning_rate"
    ):
        run_from_json({"optimizer": {"learning_rat": 1}})
    with pytest.raises(UsageError, match="study: runs: missing"):
        study_from_json({"name": "x"})
    with pytest.raises(UsageError, match="expected an object"):
        study_from_json(None)


def test_differences_name_the_field_and_both_values() -> None:
    old = study_to_json(STUDY)
    assert differences(old, study_to_json(STUDY)) == []
    first, second = STUDY.runs
    faster = replace(second, optimizer=replace(second.optimizer, learning_rate=1e-3))
    fewer = replace(first, data=replace(first.data, options={"depth": 3, "new": 1}))
    new = study_to_json(replace(STUDY, runs=(fewer, faster, Run(name="nocot")), benchmarks=()))
    assert differences(old, new) == [
        "runs.base.data.options.depth: 2 -> 3",
        "runs.base.data.options.traces: true -> (absent)",
        "runs.base.data.options.p: 0.5 -> (absent)",
        'runs.base.data.options.s: "True" -> (absent)',
        "runs.base.data.options.new: (absent) -> 1",
        "runs.cot.optimizer.learning_rate: 0.0001 -> 0.001",
        "runs.nocot: (absent) -> nocot",
        "benchmarks.game: game -> (absent)",
    ]
    assert differences([1, 2], [1, 3, 4]) == ["1: 2 -> 3", "2: (absent) -> 4"]


def test_a_python_file_is_loaded_and_its_numbers_take_the_type_of_their_field(tmp_path: Path) -> None:
    study = load_study(study_file(tmp_path, 'Run(name="base", epochs=2)'))
    assert study.runs[0] == Run(name="base", epochs=2.0)
    assert isinstance(study.runs[0].epochs, float)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("Run(optimiser=1)", "line 5: Run has no field optimiser; did you mean optimizer?"),
        ("1 / 0", "line 5: ZeroDivisionError: division by zero"),
        ("exit(3)", "line 5: SystemExit: 3"),
        ("Run(epochs='two')", 'runs.run.epochs: expected a valid number, found "two"'),
        ("Run(init=print)", "not JSON serializable"),
        ("Run(]", "line 5: closing parenthesis ']' does not match opening parenthesis '('"),
        ("Run(name='a/b')", "runs.name: 'a/b' cannot name a folder"),
    ],
)
def test_a_mistake_in_a_study_file_names_file_and_line_or_field(
    tmp_path: Path, body: str, message: str
) -> None:
    file = study_file(tmp_path, body)
    with pytest.raises(UsageError) as error:
        load_study(file)
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


def test_files_that_are_no_study(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("x = 1\n")
    with pytest.raises(UsageError, match=r"needs a function study\(\)"):
        load_study(tmp_path / "other.py")
    with pytest.raises(UsageError, match=r"no such study; .* holds other\.py"):
        load_study(tmp_path / "missing.py")
    with pytest.raises(UsageError, match="no such study"):
        load_study(tmp_path / "not" / "there.py")
    (tmp_path / "rows.txt").write_text("")
    with pytest.raises(UsageError, match="a study is a Python file"):
        load_study(tmp_path / "rows.txt")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UsageError, match="expected an object, found list"):
        load_study(tmp_path / "list.json")


def test_a_written_study_is_found_where_it_lies_now(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "small"
    write_json(folder / "study.json", {"study": study_to_json(STUDY)})
    for path in (folder, folder / "study.json"):
        assert load_study(path) == replace(STUDY, root=str(tmp_path / "elsewhere"))


def test_a_run_file_brings_the_runs_it_starts_from(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    for run in STUDY.runs:
        write_json(
            folder / run.name / "run.json", {"run": run_to_json(run), "study": "small", "data_root": "d"}
        )
    study = load_study(folder / "cot" / "run.json")
    assert study == Study(name="small", runs=STUDY.runs, root=str(tmp_path), data_root="d")
    assert [run.name for run in load_study(folder / "base" / "run.json").runs] == ["base"]
    (folder / "base" / "run.json").unlink()
    with pytest.raises(UsageError, match=r"base/run\.json: no such file"):
        load_study(folder / "cot" / "run.json")


@pytest.mark.parametrize(
    ("inside", "path", "runs"),
    [
        ("small", ".", ["base", "cot"]),
        ("small", "study.json", ["base", "cot"]),
        ("small", "base/run.json", ["base"]),
        ("small/base", "..", ["base", "cot"]),
        ("small/base", "run.json", ["base"]),
        ("small/base", "./run.json", ["base"]),
        ("small/base", "../cot/run.json", ["base", "cot"]),
        (".", "small/base/..", ["base", "cot"]),
    ],
)
def test_a_relative_path_finds_the_study_from_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, path: str, runs: list[str]
) -> None:
    folder = tmp_path / "small"
    write_json(folder / "study.json", {"study": study_to_json(replace(STUDY, root="w"))})
    for run in STUDY.runs:
        write_json(folder / run.name / "run.json", {"run": run_to_json(run)})
    monkeypatch.chdir(tmp_path / inside)
    study = load_study(path)
    assert (study.name, study.root) == ("small", str(tmp_path))
    assert [run.name for run in study.runs] == runs


def test_a_linked_folder_is_the_study_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "disk7" / "base" / "run.json", {"run": run_to_json(STUDY.runs[0])})
    (tmp_path / "small").symlink_to(tmp_path / "disk7")
    monkeypatch.chdir(tmp_path)
    study = load_study("small/base/run.json")
    assert (study.name, study.root) == ("small", str(tmp_path))


def test_a_bucket_is_not_below_the_working_folder(bucket: BucketServer) -> None:
    write_json("gs://bucket/small/base/run.json", {"run": run_to_json(STUDY.runs[0])})
    study = load_study("gs://bucket/small/base/run.json")
    assert (study.name, study.root) == ("small", "gs://bucket")


def test_run_files_that_start_from_one_another_are_refused(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        run = Run(name=name, init=f"run:{other}")
        write_json(tmp_path / "s" / name / "run.json", {"run": run_to_json(run)})
    with pytest.raises(UsageError, match="circle"):
        load_study(tmp_path / "s" / "a" / "run.json")
