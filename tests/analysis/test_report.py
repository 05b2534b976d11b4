"""The report as a whole: what it writes, that it needs no network, and that odd studies do not break it."""

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from etils import epath

from jax_sft.analysis.report import report
from jax_sft.analysis.report.report import write_report
from jax_sft.analysis.report.tables import differing_fields, training_summary
from jax_sft.analysis.study import load_study
from jax_sft.config import BenchmarkConfig, Sampling, Study
from jax_sft.errors import UsageError
from jax_sft.files import read_jsonl, write_jsonl
from jax_sft.study.folder import items_file, run_folder, unit_folder

BENCHMARK = (BenchmarkConfig(name="countdown", task="countdown", group="in_domain"),)
FIGURES = {
    "scores_by_group",
    "gains",
    "benchmarks_in_domain",
    "benchmarks_reasoning",
    "benchmarks_general",
    "benchmarks_safety",
    "length_and_score",
    "budgets_in_domain",
    "budgets_reasoning",
    "budgets_general",
    "budgets_safety",
    "safety_and_reasoning",
    "behaviours",
    "training",
}


OWN = ("#", "figures/", "results.", "comparisons.csv", "runs.csv", "budgets.csv")
"""How addresses within the report begin."""


class Page(HTMLParser):
    """Visible text, ids and outside addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.ids, self.outside, self.scripts = "", set[str](), list[str](), 0
        self._hidden = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self._hidden = tag
            self.scripts += tag == "script"
        for name, value in attrs:
            if name == "id":
                self.ids.add(str(value))
            if name in ("src", "href") and not str(value).startswith(
                ("#", "figures/", "results.", "comparisons.csv", "runs.csv", "budgets.csv")
            ):
                self.outside.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out drawing figures as files, which takes most of the time."""
    monkeypatch.setattr(report, "write_figures", lambda figures, folder: None)


def page_of(path: epath.Path) -> Page:
    return Page(path.read_text())


def data_of(path: epath.Path) -> dict[str, Any]:
    found = re.search(r"^const DATA = (.*);$", path.read_text(), re.MULTILINE)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="module")
def written(kept_study: Study) -> tuple[epath.Path, str]:
    """The whole report of the made-up study, and what writing it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        return write_report(kept_study), printed.getvalue()


def test_everything_is_written(written: tuple[epath.Path, str]) -> None:
    path, printed = written
    folder = Path(path).parent
    assert printed == f"report: {path}\n"
    assert {f.stem for f in (folder / "figures").glob("*.svg")} == FIGURES
    assert {f.stem for f in (folder / "figures").glob("*.png")} == FIGURES
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in (folder / "figures").glob("*.png"))
    legend = (folder / "figures" / "scores_by_group.svg").read_text()
    assert ">nocot</text>" in legend
    assert ">base</text>" not in legend
    assert ">base</text>" in (folder / "figures" / "training.svg").read_text()
    assert path.stat().length < 8_000_000


def test_page_is_whole_and_asks_nothing_of_the_network(
    kept_study: Study, written: tuple[epath.Path, str]
) -> None:
    page = page_of(written[0])
    assert page.outside == []
    assert page.scripts == 2
    sections = {"verdicts", "scores", "benchmarks", "length", "safety", "training", "numbers"}
    assert sections | {"transfer", "completions", "made"} <= page.ids
    assert "dipped 36.9 points at step 20" in page.text
    assert "dip, then gain" in page.text
    assert "Missing." not in page.text
    data = data_of(written[0])
    assert set(data["specs"]) == FIGURES
    panels = [spec.get("hconcat") or spec.get("vconcat") for spec in data["specs"].values()]
    assert '"legend": {' not in json.dumps(panels)
    assert list(data["sample"]["items"]) == [b.name for b in kept_study.benchmarks]


def test_results_hold_every_unit(written: tuple[epath.Path, str]) -> None:
    folder = Path(written[0]).parent
    table = pyarrow.parquet.read_table(folder / "results.parquet").to_pylist()
    assert len(table) == 2 * 8 * 5
    unit = next(r for r in table if (r["run"], r["step"], r["benchmark"]) == ("cot", 20, "sort"))
    assert (unit["n"], unit["metric"], unit["headline"]) == (80, "accuracy", True)
    assert unit["low"] < unit["mean"] < unit["high"]
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == [row["mean"] for row in table]


def test_every_snapshot_is_compared_with_its_base(written: tuple[epath.Path, str]) -> None:
    with open(Path(written[0]).parent / "comparisons.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (4 + 5) * 7
    row = next(r for r in rows if (r["run"], r["curve"], r["step"]) == ("cot", "sort", "20"))
    assert float(row["mean"]) == pytest.approx(-0.4625)
    assert float(row["low"]) < -0.4625 < float(row["high"]) < 0
    assert float(row["p"]) <= float(row["p_curve"]) <= 7 * float(row["p"])
    assert float(row["p"]) <= float(row["q_study"]) < 0.001
    assert (row["items"], row["paired"]) == ("80", "true")


def test_scores_at_smaller_budgets_end_at_the_score(written: tuple[epath.Path, str]) -> None:
    with open(Path(written[0]).parent / "budgets.csv", newline="") as file:
        rows = [
            r for r in csv.DictReader(file) if (r["run"], r["benchmark"], r["step"]) == ("cot", "sort", "80")
        ]
    assert [int(row["tokens"]) for row in rows][:4] == [16, 24, 32, 48]
    scores = [float(row["mean"]) for row in rows]
    assert scores == sorted(scores)
    assert (scores[0], scores[-1]) == (0.0, pytest.approx(0.65))


def test_browser_shows_the_same_items_at_every_snapshot(
    kept_study: Study, written: tuple[epath.Path, str]
) -> None:
    sample = data_of(written[0])["sample"]
    items = sample["items"]["sort"]
    assert len(items) == 8
    assert [item["why"] for item in items].count("picked at random") == 5
    rows = read_jsonl(unit_folder(kept_study, "cot", 40, "sort") / "completions.jsonl")
    stored = {row["item"]: row["completion"] for row in rows}
    shown = sample["units"]["cot"]["sort"]["40"]
    assert [entry["thought"] + entry["said"] for entry in shown] == [stored[item["id"]] for item in items]
    assert sample["units"]["nocot"]["sort"].keys() == sample["units"]["cot"]["sort"].keys()


def test_same_study_same_bytes(make_study: Callable[..., Study]) -> None:
    study = make_study(steps=(0, 20), benchmarks=BENCHMARK)
    folder = write_report(study).parent
    first = {str(path): path.read_bytes() for path in Path(folder).rglob("*.*")}
    write_report(study)
    assert {str(path): path.read_bytes() for path in Path(folder).rglob("*.*")} == first
    assert len(first) == 6 + 2 * len(list((folder / "figures").glob("*.svg")))


def test_hostile_and_long_completions(
    make_study: Callable[..., Study], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(runs=("cot",), steps=(0, 40), benchmarks=BENCHMARK)
    monkeypatch.setattr("jax_sft.analysis.report.browser.BUDGET", 40_000)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \u2028 \x00 {{ 7 * 7 }}"
    for step, text in ((0, evil), (40, "a" * 30_000 + "END")):
        path = unit_folder(study, "cot", step, "countdown") / "completions.jsonl"
        write_jsonl(path, [row | {"completion": text} for row in read_jsonl(path)])
    path = write_report(replace(study, description=evil))
    page = page_of(path)
    assert page.scripts == 2
    assert page.outside == []
    units = data_of(path)["sample"]["units"]["cot"]["countdown"]
    assert units["0"][0]["said"] == evil
    assert len(units["40"][0]["said"]) < 4100
    assert units["40"][0]["said"].endswith("END")
    assert "26,003 characters left out" in units["40"][0]["said"]


def test_run_without_snapshots_swept_shows_training_only(
    make_study: Callable[..., Study], quick: None
) -> None:
    path = write_report(make_study(runs=()))
    page = page_of(path)
    assert set(data_of(path)["specs"]) == {"training"}
    assert "No snapshot has been swept yet" in page.text
    assert "verdicts" not in page.ids
    for name in ("comparisons", "runs", "budgets"):
        assert (Path(path).parent / f"{name}.csv").read_text().startswith('"study",')


@pytest.mark.parametrize(
    ("steps", "words"), [((0,), "one snapshot only"), ((320,), "no base to compare with")]
)
def test_single_snapshot_of_a_single_group(
    make_study: Callable[..., Study], quick: None, steps: tuple[int, ...], words: str
) -> None:
    study = make_study(runs=("cot",), steps=steps, benchmarks=BENCHMARK)
    path = write_report(study)
    page = page_of(path)
    assert words in page.text
    assert "gains" not in data_of(path)["specs"]
    assert "transfer" not in page.ids


def test_no_items_are_named_and_never_averaged(make_study: Callable[..., Study], quick: None) -> None:
    path = write_report(make_study(runs=("cot",), items=0))
    page = page_of(path)
    assert "cot, sort, step 0, 5, 10, 20, 40, 80, 160, 320: scored on no items" in page.text
    assert set(data_of(path)["specs"]) == {"training"}
    assert all(row[6] is None for row in data_of(path)["table"]["rows"])


def test_nothing_to_report_is_one_clear_line(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run of study made-up is there; train it first"):
        write_report(replace(study, root=str(tmp_path / "elsewhere")))


def test_broken_files_are_named(study: Study) -> None:
    path = unit_folder(study, "cot", 20, "sort") / "scores.json"
    whole = path.read_text()
    for text, what in ((whole[:100], "not JSON"), ("{}", "study: missing .*score the unit again")):
        path.write_text(text)
        [missing] = load_study(study).missing
        assert re.search(rf"cot, sort, step 20: .*scores\.json: {what}", missing)
    assert "scores.json: study: missing" in page_of(write_report(study)).text
    path.write_text(whole)
    metrics = run_folder(study, "cot") / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 3\n')
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 321"):
        write_report(study)


def test_missing_units_completions_and_items(make_study: Callable[..., Study], quick: None) -> None:
    study = make_study(runs=("cot",), steps=(0, 20, 40), benchmarks=BENCHMARK)
    (unit_folder(study, "cot", 20, "countdown") / "scores.json").unlink()
    items_file(study, "countdown").unlink()
    (unit_folder(study, "cot", 40, "countdown") / "completions.jsonl").unlink()
    path = write_report(study)
    assert "cot, countdown, step 20: generated, not scored" in page_of(path).text
    units = data_of(path)["sample"]["units"]["cot"]["countdown"]
    assert units.keys() == {"0", "40"}
    assert all(entry is not None for entry in units["0"])
    assert all(entry is None for entry in units["40"])


def test_differing_fields_and_training_summary(kept_study: Study) -> None:
    runs = load_study(kept_study).runs
    differences = dict(differing_fields(runs[1:]))
    assert differences == {"data.options.traces": ["True", "False"]}
    summary = training_summary(runs[1])
    assert (summary["steps"], summary["tokens"], summary["skipped"]) == (320, 320 * 2048, 0)
    assert summary["tokens_per_second"] == pytest.approx(2048 / 0.098)


@pytest.mark.usefixtures("quick")
def test_how_each_benchmark_is_sampled_is_said(make_study: Callable[..., Study]) -> None:
    drawn = replace(BENCHMARK[0], samples=4, sampling=Sampling(temperature=0.6, top_p=0.95))
    assert "0.6" in page_of(write_report(make_study(benchmarks=(drawn,)))).text


def test_a_run_whose_record_is_damaged_leaves_the_others_shown(study: Study, quick: None) -> None:
    path = run_folder(study, "nocot") / "run.json"
    path.write_text(path.read_text()[:200])
    results = load_study(study)
    assert [run.name for run in results.swept] == ["cot"]
    assert any("nocot/run.json: not JSON" in phrase for phrase in results.missing)
    assert "nocot/run.json: not JSON" in page_of(write_report(study)).text
