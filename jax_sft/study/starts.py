"""The run that another one starts from, as `init` names it."""

from typing import NamedTuple

from jax_sft.errors import UsageError


class StartRun(NamedTuple):
    """The run that another starts from, and which of its snapshots: None is the last."""

    run: str
    step: int | None


def parse_init(init: str) -> StartRun | None:
    """What `run:NAME` or `run:NAME@STEP` says; None for others. UsageError when no step follows @."""
    if not init.startswith("run:"):
        return None
    name, at_sign, step = init.removeprefix("run:").partition("@")
    if at_sign and not step.isdecimal():
        raise UsageError(f"init {init!r}: after @ comes a step number")
    return StartRun(name, int(step) if step else None)
