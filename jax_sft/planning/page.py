"""The page of a plan: a table of all runs, a plot of memory and time, and a section for each run."""

from typing import Any

import altair as alt

from jax_sft.pages.page import page_templates
from jax_sft.pages.style import GREY, INK, PALETTE, draw, panel
from jax_sft.planning.costing import RunPlan
from jax_sft.planning.sweeping import SweepPlan
from jax_sft.planning.tables import COLUMNS, GIB, StudyPlan, notes, row, settings_text, span

MEMORY = ("parameters", "optimizer", "activations and temporaries")
TIMES = ("compute", "HBM", "interconnect", "data centre network", "host")
WIDTH = 430
"""Pixels of one panel."""


def render(plan: StudyPlan) -> str:
    """The page, which needs no other file."""
    drawn = [each for each in plan.runs if each.train is not None]
    page = page_templates("jax_sft.planning", "templates").get_template("plan.html.jinja")
    return page.render(
        plan=plan,
        title=plan.study.title or plan.study.name,
        columns=COLUMNS,
        rows=[row(each) for each in plan.runs],
        notes=notes(plan),
        details=[(each, details(each)) for each in plan.runs],
        figure=draw(figure(plan)) if drawn else "",
    )


def details(plan: RunPlan) -> list[tuple[str, str]]:
    """(what, how much) of everything known of a run on a slice."""
    if plan.train is None:
        return []
    train, work = plan.train, plan.train.work
    lines = [
        ("settings", settings_text(plan)),
        ("steps", f"{work.total_steps:,}, snapshots {work.snapshots}"),
        ("tokens of a step", f"{work.tokens:,.0f}, packed rows {work.efficiency:.0%} full"),
    ]
    for length, facts in train.facts.items():
        memory = ", ".join(f"{kind} {size / GIB:.2f}" for kind, size in facts.memory.items() if size)
        lines.append((f"GiB per device, rows of {length:,}", memory))
    for length, each in train.rooflines.items():
        lines += [
            (
                f"per device and step, rows of {length:,}",
                f"{each.flops / 1e12:,.1f} TFLOP and {each.kernel_flops / 1e12:,.1f} in attention kernels, "
                f"{each.hbm_bytes / 1e9:,.1f} GB of HBM traffic, {each.ici_bytes / 1e9:,.2f} GB received "
                f"over the interconnect, {each.dcn_bytes / 1e9:,.2f} GB between slices",
            ),
            ("least seconds", ", ".join(f"{name} {seconds:.3f}" for name, seconds in each.parts.items())),
            ("model FLOPs of a step", f"{train.model_flops:.3g}; MFU at the bound {train.mfu:.1%}"),
        ]
    if (sweep := plan.sweep) is not None:
        lines.append(
            (
                "sweep of a snapshot",
                sweep_text(sweep, plan.topology.chips),
            )
        )
    if plan.reading:
        parts = ", ".join(f"{name} {span(seconds)}" for name, seconds in plan.reading.items())
        lines.append(("likelihoods and judges of a snapshot, seconds", parts))
    return lines + [("tried", each) for each in plan.tried]


def sweep_text(sweep: SweepPlan, chips: int) -> str:
    """A snapshot's sweep in a sentence."""
    slow, fast = (rate / chips for rate in sweep.tokens_per_second)
    return (
        f"{sweep.work.completions:,} completions, {sweep.work.tokens:,.0f} tokens, {sweep.sequences:,.0f} "
        f"sequences of {sweep.live:,.0f} positions at once; a token of each takes at least "
        f"{sweep.decode.bound * 1e3:.2f} ms ({sweep.decode.limit}; {sweep.useful:.0%} of the bytes are "
        f"weights or alive): {slow:,.0f}-{fast:,.0f} tokens/s a chip; a prefill of "
        f"{sweep.prefill_tokens:,} tokens {sweep.prefill.bound * 1e3:.1f} ms; peak "
        f"{sweep.facts.peak / GIB:.1f} GiB"
    )


def figure(plan: StudyPlan) -> dict[str, Any]:
    """Vega-Lite: memory by kind against what there is, and the seconds each part of the machine needs."""
    memory: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    times: list[dict[str, Any]] = []
    for each in plan.runs:
        if each.train is None:
            continue
        label = f"{each.run.name} · {each.topology.label}"
        facts = each.train.widest
        known = {kind: facts.memory.get(kind, 0.0) for kind in MEMORY[:-1]}
        kinds = known | {MEMORY[-1]: max(0.0, facts.peak - sum(known.values()))}
        memory += [{"plan": label, "kind": kind, "GiB": size / GIB} for kind, size in kinds.items()]
        limits.append({"plan": label, "GiB": each.topology.hbm_bytes / GIB})
        if each.train.rooflines:
            times += [
                {"plan": label, "part": name, "seconds": value}
                for name, value in each.train.main.parts.items()
            ]
    left = _memory_panel(memory, limits)
    right = _time_panel(times)
    return {
        "resolve": {"scale": {"color": "independent"}},
        "hconcat": [left, right] if times else [left],
    }


def _memory_panel(memory: list[dict[str, Any]], limits: list[dict[str, Any]]) -> dict[str, Any]:
    bars = (
        alt.Chart(alt.Data(values=memory))
        .mark_bar()
        .encode(
            x=alt.X("GiB:Q", stack="zero", title="GiB of a device; line: usable HBM"),
            y=alt.Y("plan:N", title=None, sort=None),
            color=_colour("kind", MEMORY),
        )
    )
    ticks = (
        alt.Chart(alt.Data(values=limits))
        .mark_tick(color=INK, thickness=2, size=22)
        .encode(x="GiB:Q", y=alt.Y("plan:N", sort=None))
    )
    return panel(bars + ticks, width=WIDTH, height=alt.Step(26), title="Memory at its peak")


def _time_panel(times: list[dict[str, Any]]) -> dict[str, Any]:
    bars = (
        alt.Chart(alt.Data(values=times))
        .mark_bar()
        .encode(
            x=alt.X("seconds:Q", title="seconds of a step, each part alone; the longest is the bound"),
            y=alt.Y("plan:N", title=None, sort=None),
            yOffset=alt.YOffset("part:N", sort=list(TIMES)),
            color=_colour("part", TIMES),
        )
    )
    return panel(bars, width=WIDTH, height=alt.Step(11), title="Time")


def _colour(name: str, values: tuple[str, ...]) -> alt.Color:
    colours = [*PALETTE[: len(values) - 1], GREY]
    legend = alt.Legend(title=None, orient="top")
    return alt.Color(f"{name}:N", scale=alt.Scale(domain=list(values), range=colours), legend=legend)
