"""Where everything of a study lies on disk: the name of every file and folder, spelt here and nowhere else.

<root>/prepared/                         rows tokenised in advance, shared by the studies of a root
<root>/<study>/study.json                the study, as its last run was started
<root>/<study>/benchmarks/<name>.jsonl   the items that every unit was asked
<root>/<study>/<run>/run.json            the run's record: resolved config, versions, hashes
                     metrics.jsonl       one line a step; tensorboard/ holds the same
                     started.json        when it was first started
                     snapshots/ state/ exports/ trace/
                     evals/<step>/<benchmark>/   unit.json, completions.jsonl, timing.json, verdicts.jsonl,
                                                 scores.json
                     aside/<step>/<benchmark>/   what no longer counts
<root>/<study>/report/  plan/            pages
"""

from collections.abc import Iterator

from etils import epath

from jax_sft.config import Study
from jax_sft.files import home, list_files

RUN_FILE, STUDY_FILE, COMPLETIONS = "run.json", "study.json", "completions.jsonl"
_BENCHMARKS, _REPORT, _PLAN, _PREPARED = "benchmarks", "report", "plan", "prepared"
_EVALS, _ASIDE = "evals", "aside"
RESERVED_RUNS = (_BENCHMARKS, _PLAN, _REPORT)
"""Folders of a study that are not runs."""
RESERVED_STUDIES = (_PREPARED,)
"""Folders of a root that are not studies."""


def study_folder(study: Study) -> epath.Path:
    """<root>/<study>"""
    return home(study.root) / study.name


def study_file(folder: epath.PathLike) -> epath.Path:
    """The study as JSON, in a study's folder."""
    return epath.Path(folder) / STUDY_FILE


def items_file(study: Study, benchmark: str) -> epath.Path:
    """The items every unit of the study was asked."""
    return study_folder(study) / _BENCHMARKS / f"{benchmark}.jsonl"


def report_folder(study: Study) -> epath.Path:
    """Where the report lies."""
    return study_folder(study) / _REPORT


def plan_folder(study: Study) -> epath.Path:
    """Where the page of a plan lies."""
    return study_folder(study) / _PLAN


def prepared_folder(study: Study) -> epath.Path:
    """Where `jax-sft data prepare` puts rows, for all studies of a root."""
    return home(study.root) / _PREPARED


def run_folder(study: Study, run: str) -> epath.Path:
    """<root>/<study>/<run>"""
    return study_folder(study) / run


def run_file(folder: epath.PathLike) -> epath.Path:
    """The run's record, in its folder."""
    return home(folder) / RUN_FILE


def metrics_file(folder: epath.PathLike) -> epath.Path:
    """One line a step, in a run's folder."""
    return epath.Path(folder) / "metrics.jsonl"


def metrics_parts(folder: epath.PathLike) -> epath.Path:
    """Where the latest lines are until they are in the metrics file, in a run's folder in a bucket."""
    return epath.Path(folder) / "metrics"


def started_file(folder: epath.PathLike) -> epath.Path:
    """When a run was first started."""
    return epath.Path(folder) / "started.json"


def tensorboard_folder(folder: epath.PathLike) -> epath.Path:
    """The metrics for TensorBoard, in a run's folder."""
    return epath.Path(folder) / "tensorboard"


def trace_folder(folder: epath.PathLike) -> epath.Path:
    """A profiler's trace, in a run's folder."""
    return epath.Path(folder) / "trace"


def snapshots_folder(folder: epath.PathLike) -> epath.Path:
    """Parameters at named steps, in a run's folder."""
    return epath.Path(folder) / "snapshots"


def state_folder(folder: epath.PathLike) -> epath.Path:
    """What is needed to go on, in a run's folder."""
    return epath.Path(folder) / "state"


def export_folder(folder: epath.PathLike, step: int) -> epath.Path:
    """One snapshot as a Hugging Face folder, in a run's folder."""
    return epath.Path(folder) / "exports" / str(step)


def unit_folder(study: Study, run: str, step: int, benchmark: str) -> epath.Path:
    """What was drawn and found for one benchmark with one snapshot of a run."""
    return run_folder(study, run) / _EVALS / str(step) / benchmark


def unit_folders(study: Study, run: str) -> Iterator[tuple[int, str, epath.Path]]:
    """(step, benchmark, folder) of every unit that a run's folder holds, by step."""
    evals = run_folder(study, run) / _EVALS
    parts = (name.split("/") for name in list_files(evals))
    units = {(part[0], part[1]) for part in parts if len(part) > 2 and part[0].isdecimal()}
    for step, benchmark in sorted(units, key=lambda unit: (int(unit[0]), unit[1])):
        yield int(step), benchmark, evals / step / benchmark


def aside_folder(study: Study, run: str, step: int, benchmark: str) -> epath.Path:
    """Where what was drawn for a unit is kept, numbered, when it no longer counts."""
    return run_folder(study, run) / _ASIDE / str(step) / benchmark


def completions_file(unit: epath.PathLike) -> epath.Path:
    """All completions of a unit, in its folder; there once all are drawn."""
    return epath.Path(unit) / COMPLETIONS


def parts_folder(unit: epath.PathLike) -> epath.Path:
    """The completions of a unit so far, in its folder, while not all are drawn."""
    return epath.Path(unit) / "parts"


def unit_file(unit: epath.PathLike) -> epath.Path:
    """What a unit's completions are made from, in its folder."""
    return epath.Path(unit) / "unit.json"


def sampling_file(unit: epath.PathLike) -> epath.Path:
    """The settings of a unit, all that versions before 2026-11 kept of what it is made from."""
    return epath.Path(unit) / "sampling.json"


def timing_file(unit: epath.PathLike) -> epath.Path:
    """How long a unit's completions took to draw, in its folder."""
    return epath.Path(unit) / "timing.json"


def verdicts_file(unit: epath.PathLike) -> epath.Path:
    """What judges that are models said of a unit's completions, in its folder."""
    return epath.Path(unit) / "verdicts.jsonl"


def scores_file(unit: epath.PathLike) -> epath.Path:
    """What was found in a unit's completions, in its folder."""
    return epath.Path(unit) / "scores.json"
