"""The plan of a study: every run on every slice asked for, in the terminal, as a page and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from etils import epath
from rich.console import Console

from jax_sft.config import Run, Study
from jax_sft.data.rows import RowSet
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import write_atomically, write_json
from jax_sft.options import PlanOptions
from jax_sft.planning.costing import RunPlan, Settings, load_prices, plan_training
from jax_sft.planning.expected import SweepWorkload, sweep_workload
from jax_sft.planning.page import render
from jax_sft.planning.reading import ReadingWork, reading_work
from jax_sft.planning.search import search
from jax_sft.planning.sums import sums_json, sums_table, table_sums
from jax_sft.planning.sweeping import plan_sweep
from jax_sft.planning.tables import TERMINAL_WIDTH, StudyPlan, as_json, notes, terminal_table
from jax_sft.planning.topologies import Topology, parse_topology
from jax_sft.planning.workload import Workload, load_rows, workload
from jax_sft.study.folder import plan_folder
from jax_sft.study.patterns import first_matching
from jax_sft.terminal import messages, results


def write_plan(study: Study, runs: Sequence[Run], options: PlanOptions) -> epath.Path:
    """Plan `runs` on every slice of `options.chips`, print the table and write <root>/<study>/plan/.

    There: index.html, plan.json. A run that cannot be planned is told with its reason and does not stop the
    others. UsageError for unknown chips, prices or data; JaxSftError when no run could be planned.
    """
    plan = make_plan(study, runs, options, messages())
    console = results(TERMINAL_WIDTH)
    console.print(terminal_table(plan))
    console.print("\n".join(notes(plan)))
    if sums := table_sums(plan):
        console.print(sums_table(sums))
        console.print(
            "tables share runs, so that they add up to more than all runs; the last line counts each once"
        )
    folder = plan_folder(study)
    write_atomically(folder / "index.html", render(plan))
    write_json(folder / "plan.json", [as_json(each) for each in plan.runs])
    if sums:
        write_json(folder / "tables.json", sums_json(sums))
    console.print(f"plan: {folder / 'index.html'}")
    if all(each.train is None for each in plan.runs):
        raise JaxSftError(f"no run could be planned: {plan.runs[0].problem}")
    return folder / "index.html"


def make_plan(study: Study, runs: Sequence[Run], options: PlanOptions, console: Console) -> StudyPlan:
    """The plan as data; `console` is told what is being compiled."""
    options.check()
    names = [name for text in options.chips for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("--chips: name at least one slice, such as --chips v5p:64")
    topologies = tuple(map(parse_topology, names))
    prices, sweep = load_prices(options.prices), sweep_workload(study, options.completion_share)
    reading = reading_work(study, sweep)
    plans = []
    for run in runs:
        rows = load_rows(study, run)
        for topology in topologies:
            planner = _Planner(study, run, rows, topology, options, console)
            plans.append(planner.plan(sweep, reading, prices.chip_hour.get(topology.chip.name)))
    return StudyPlan(study, topologies, tuple(plans), prices, sweep, reading)


@dataclass(frozen=True)
class _Planner:
    """Plans one run on one slice, and tells the console what it compiles."""

    study: Study
    run: Run
    rows: RowSet | None
    topology: Topology
    options: PlanOptions
    console: Console

    @property
    def settings(self) -> Settings:
        """The options that compiling and judging a fit need."""
        return Settings(self.options.cache_folder, self.options.timeout, self.options.hbm_share)

    def plan(self, sweep: SweepWorkload, reading: ReadingWork, price: float | None) -> RunPlan:
        """The plan of one run on one slice; what goes wrong is told in it."""
        plan = RunPlan(self.run, self.topology, price=price)
        try:
            plan = self._trained(plan)
            if plan.train is not None and plan.train.rooflines:
                self._say("compiling decode and prefill")
                evaluation = self.study.evaluation
                made = plan_sweep(plan.run, evaluation, sweep, self.topology, self.settings)
                read = reading.seconds(plan.run.model, evaluation, self.topology)
                plan = replace(plan, sweep=made, reading=read)
        except JaxSftError as error:
            plan = replace(plan, problem=str(error))
        return plan

    def _trained(self, plan: RunPlan) -> RunPlan:
        if not self.options.search:
            self._say("compiling the train step")
            return replace(
                plan, train=plan_training(self.run, self._work(self.run), self.topology, self.settings)
            )
        best, tried = search(
            self.run, self._work, self.topology, self.settings, self.options.most_compiled, self._say
        )
        if best is None:
            return replace(plan, problem="nothing that was tried fits", tried=tuple(tried))
        return replace(plan, run=best.run, train=best, tried=tuple(tried))

    def _work(self, run: Run) -> Workload:
        options, expected = self.options, self.study.row_tokens
        pattern = first_matching(list(expected), run.name)
        tokens = options.row_tokens or (expected[pattern] if pattern else 0)
        return workload(run, self.rows, options.rows, tokens, options.target_share)

    def _say(self, text: str) -> None:
        self.console.print(f"{self.run.name} on {self.topology.label}: {text}")
