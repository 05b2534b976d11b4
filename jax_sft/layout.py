"""Where everything of a study lies on disk; see the design's "What flows"."""

from etils import epath

from jax_sft.config import Study


def study_folder(study: Study) -> epath.Path:
    """<root>/<study>"""
    return epath.Path(study.root) / study.name


def run_folder(study: Study, run: str) -> epath.Path:
    """<root>/<study>/<run>"""
    return study_folder(study) / run


def unit_folder(study: Study, run: str, step: int, benchmark: str) -> epath.Path:
    """<root>/<study>/<run>/evals/<step>/<benchmark>"""
    return run_folder(study, run) / "evals" / str(step) / benchmark


def items_file(study: Study, benchmark: str) -> epath.Path:
    """<root>/<study>/benchmarks/<benchmark>.jsonl, the items every unit of the study was asked."""
    return study_folder(study) / "benchmarks" / f"{benchmark}.jsonl"


def report_folder(study: Study) -> epath.Path:
    """<root>/<study>/report"""
    return study_folder(study) / "report"
