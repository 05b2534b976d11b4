"""What the curves say, in words and numbers for the head of the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jax_sft.analysis.series import Series, distinct
from jax_sft.analysis.study import RunResults, StudyResults

SHARE_OF_A_RETURN = 0.25
"""A curve that has won back less than this of its lowest point is said to have lost, not to have dipped."""
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Landmark:
    """A number of the verdict table; `real` when it is larger than noise."""

    text: str
    real: bool = False


@dataclass(frozen=True)
class VerdictLine:
    """One line of a run's verdict table: a group, or a benchmark under it."""

    series: Series
    verdict: str
    tone: str
    """gain, loss, dip or flat: colours the verdict."""
    base: str
    dip: Landmark
    recovery: Landmark
    best: str
    """The highest change, chosen after the fact, and (in brackets) on items that it was not chosen on."""
    final: str
    gain: Landmark
    interval: str
    p: str
    """Of no final change, corrected for the run's other curves."""
    visible: str
    """The final change that 80% of such comparisons would find."""
    items: int


@dataclass(frozen=True)
class RunFindings:
    """A run's part of the head: one line on what it is, sentences on what happened, and the table."""

    run: str
    what: str
    sentences: list[str]
    lines: list[VerdictLine]

    def group(self, name: str) -> VerdictLine | None:
        """The line of a group, where the run has one."""
        return next((line for line in self.lines if line.series.is_group and line.series.name == name), None)


def find(record: StudyResults, series: Sequence[Series]) -> list[RunFindings]:
    """Findings of every swept run, in the order of the study."""
    return [_run_findings(record, run, [s for s in series if s.run == run.name]) for run in record.swept]


def value(number: float, share: bool) -> str:
    """A score: per cent with one decimal for a share, three significant digits otherwise."""
    return (f"{100 * number:.1f}%" if share else f"{number:.3g}").replace("-", MINUS)


def change(number: float, share: bool) -> str:
    """A signed difference of scores: points of per cent for shares."""
    text = f"{100 * number:+.1f}" if share else f"{number:+.3g}"
    return "0.0" if share and text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def _run_findings(record: StudyResults, run: RunResults, series: list[Series]) -> RunFindings:
    sentences = []
    for group in record.groups:
        whole = next((s for s in series if s.is_group and s.name == group), None)
        if whole is not None and whole.shape is not None:
            sentences.append(sentence(whole, [s.name for s in series if s.group == group and not s.is_group]))
    return RunFindings(run.name, what_it_is(run), sentences, [_line(s) for s in distinct(series)])


def what_it_is(run: RunResults) -> str:
    """One line: start weights, data, passes and batch, peak learning rate."""
    config = run.config
    start = {"random": "random weights"}.get(config.init, config.init.replace("run:", "run "))
    trained = run.training[-1]["step"] if run.training else None
    steps = run.total_steps or trained or (run.steps[-1] if run.steps else 0)
    return (
        f"from {start}, {steps:,} steps of {config.data.batch_size} rows, "
        f"{config.epochs:g} {'epoch' if config.epochs == 1 else 'epochs'} of {config.data.source}, "
        f"learning rate {config.optimizer.learning_rate:g} ({config.optimizer.schedule})"
    )


def sentence(series: Series, members: Sequence[str] = ()) -> str:
    """What happened to one curve, in one sentence. The series needs a shape."""
    shape = series.shape
    assert shape is not None
    low, high = (change(bound, series.is_share) for bound in (series.final.low, series.final.high))
    unit = " points" if series.is_share else ""
    gain = f"{change(shape.final_gain, series.is_share)}{unit} (95% interval {low} to {high})"
    ends = f"{value(shape.base, series.is_share)} to {value(shape.final, series.is_share)}, {gain}"
    noise = "" if series.final_is_real else f", within noise (p {p_value(series.p_final)})"
    name = f"{series.title} ({', '.join(members)})" if members else series.title
    return f"{name}: {_dip_clause(series)}{ends}{noise}."


def _dip_clause(series: Series) -> str:
    shape = series.shape
    assert shape is not None
    if not dipped_and_returned(series):
        return ""
    depth = change(shape.dip_depth, series.is_share).lstrip("+") + (" points" if series.is_share else "")
    if shape.recovery_step is not None:
        back = f"back at its base by step {shape.recovery_step}"
    else:
        back = f"{100 * (shape.recovered_share or 0):.0f}% of it won back by step {shape.final_step}"
    return f"dipped {depth} at step {shape.dip_step}, {back}; "


def verdict(series: Series) -> tuple[str, str]:
    """(words, tone) for one curve."""
    shape = series.shape
    if shape is None:
        return ("no base to compare with" if series.base is None else "one snapshot only"), "flat"
    dipped = dipped_and_returned(series)
    if series.final_is_real:
        if shape.final_gain > 0:
            return ("dip, then gain" if dipped else "gain"), "gain"
        if dipped:
            return ("dip, recovered, then loss" if shape.recovery_step else "dip, not recovered"), "loss"
        return "loss", "loss"
    if dipped:
        return ("dip, recovered" if shape.recovery_step else "dip, back within noise"), "dip"
    return "no clear change", "flat"


def dipped_and_returned(series: Series) -> bool:
    """Whether there was a dip beyond noise of which a good part was won back: else a fall is just a loss."""
    share = series.shape.recovered_share if series.shape else None
    return series.dip_is_real and share is not None and share >= SHARE_OF_A_RETURN


def _line(series: Series) -> VerdictLine:
    words, tone = verdict(series)
    shape, share = series.shape, series.is_share
    if shape is None:
        last = series.points[-1]
        base = value(series.base.score, share) if series.base else "–"
        none = Landmark("–")
        final = value(last.score, share)
        return VerdictLine(series, words, tone, base, none, none, "–", final, none, "", "–", "–", 0)
    dip, back = Landmark("none"), Landmark("–")
    if shape.dip_step is not None:
        dip = Landmark(f"{change(-shape.dip_depth, share)} at step {shape.dip_step}", series.dip_is_real)
        step = shape.recovery_step
        back = Landmark(f"step {step}" if step else f"not by {shape.final_step}", series.dip_is_real)
    best = f"{change(shape.best_gain, share)} at step {shape.best_step}"
    if len(series.changes) > 1 and math.isfinite(series.best_elsewhere):
        best += f" ({change(series.best_elsewhere, share)})"
    low, high = change(series.final.low, share), change(series.final.high, share)
    natural, visible = series.points[-1].score, series.final.visible
    assert series.base is not None
    return VerdictLine(
        series=series,
        verdict=words,
        tone=tone,
        base=value(series.base.score, share),
        dip=dip,
        recovery=back,
        best=best,
        final=value(natural, share),
        gain=Landmark(change(shape.final_gain, share), series.final_is_real),
        interval=f"{low} to {high}" + ("" if series.paired else " †"),
        p=p_value(series.p_final),
        visible=change(visible, share).lstrip("+") if math.isfinite(visible) else "–",
        items=series.final.items,
    )


def p_value(p: float) -> str:
    """A p-value: two digits, or that it is smaller than they can say."""
    return "<0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
