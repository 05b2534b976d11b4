"""How a run begins: its identity on disk, its start weights, or the state it goes on from."""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import flax.linen as nn
import jax
from etils import epath
from jax.sharding import Mesh

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import LoraConfig, Run, Study, replace
from jax_sft.data.loader import BatchPlan
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import read_json, write_json
from jax_sft.layout import run_folder, study_folder
from jax_sft.models.decoder import Params, init_params
from jax_sft.models.lora import merge, split
from jax_sft.models.pretrained import load_pretrained, pretrained_config
from jax_sft.studies import differences, run_from_json, run_to_json, study_to_json
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.training.step import TrainState, abstract_state, cast_params, init_state

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")
FREE_TO_CHANGE = ("optimizer_memory", "parallelism", "remat", "snapshots", "trace")
"""Parts of a run that may differ when it is resumed: they do not change what is computed."""


def write_identity(
    study: Study, run: Run, plan: BatchPlan, template: ChatTemplate, steps: list[int]
) -> epath.Path:
    """Write study.json and run.json, or refuse a folder with saves of another configuration."""
    folder = run_folder(study, run.name)
    identity: dict[str, Any] = {
        "study": study.name,
        "run": run_to_json(run),
        "data_root": study.data_root,
        "template_hash": template.hash,
        "data_hash": plan.rows.hash,
        "total_steps": plan.total_steps,
        "snapshot_steps": steps,
        "packing": str(plan.report()),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    path = folder / "run.json"
    if path.exists() and _has_saves(folder):
        old = read_json(path)
        # Through the dataclass, so that fields added since have their defaults.
        old["run"] = run_to_json(run_from_json(old["run"], str(path)))
        _refuse_another(folder, old, identity)
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)
        write_json(study_folder(study) / "study.json", {"study": study_to_json(study)})
    return folder


def _has_saves(folder: epath.Path) -> bool:
    """Whether training came so far that something was saved."""
    kinds = [folder / kind for kind in ("snapshots", "state")]
    return any(path.name.isdecimal() for kind in kinds if kind.exists() for path in kind.iterdir())


def _refuse_another(folder: epath.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    def essence(identity: dict[str, Any]) -> dict[str, Any]:
        run = {name: value for name, value in identity["run"].items() if name not in FREE_TO_CHANGE}
        return run | {name: identity.get(name) for name in ("template_hash", "data_hash", "total_steps")}

    changed = differences(essence(old), essence(new))
    if changed:
        raise UsageError(
            f"{folder}: was made with another configuration ({'; '.join(changed)}); "
            "give the run another name or --root, or remove the folder"
        )


def parse_init(init: str) -> tuple[str, int | None]:
    """(run name, step or None for its last) of `run:NAME` or `run:NAME@STEP`."""
    name, _, step = init.removeprefix("run:").partition("@")
    if step and not step.isdecimal():
        raise UsageError(f"init {init!r}: after @ comes a step number")
    return name, int(step) if step else None


def start_params(study: Study, run: Run, mesh: Mesh) -> Params:
    """The weights before the first update: random, imported, or another run's snapshot; and new adapters."""
    base = _base_params(study, replace(run, lora=LoraConfig()), mesh)
    if not run.lora.rank:
        return base
    adapters, _ = split(abstract_state(run, mesh).params)
    make = jax.jit(
        lambda key: split(cast_params(nn.unbox(init_params(run.model, key, run.lora)), run))[0],
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, adapters),
    )
    return merge(make(jax.random.key(run.seed)), base)


def _base_params(study: Study, run: Run, mesh: Mesh) -> Params:
    target = abstract_state(run, mesh).params
    if run.init == "random":
        shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
        make = jax.jit(
            lambda key: cast_params(nn.unbox(init_params(run.model, key)), run), out_shardings=shardings
        )
        return make(jax.random.key(run.seed))
    if run.init.startswith("run:"):
        return _params_of_run(study, run, target)
    changed = differences(asdict(run.model), asdict(pretrained_config(run.init)))
    if changed:
        raise UsageError(
            f"run {run.name}: model does not fit the weights of {run.init}: {'; '.join(changed)}"
        )
    return load_pretrained(run.init, target)[1]


def _params_of_run(study: Study, run: Run, target: Params) -> Params:
    """A snapshot of the run that `run.init` names, by default the last of its schedule."""
    name, step = parse_init(run.init)
    folder = run_folder(study, name)
    if not (folder / "run.json").exists():
        raise JaxSftError(f"run {run.name} starts from run {name}, which is not trained yet: train it first")
    identity = read_json(folder / "run.json")
    changed = differences(identity["run"]["model"], asdict(run.model))
    if changed:
        raise UsageError(f"run {run.name}: model is not that of run {name}: {'; '.join(changed)}")
    return load_snapshot(folder, identity["snapshot_steps"][-1] if step is None else step, target)


def start_state(study: Study, run: Run, mesh: Mesh) -> TrainState:
    """The state before the first update."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(run, mesh))
    params = start_params(study, run, mesh)
    make = jax.jit(lambda params: init_state(run, params), out_shardings=shardings, donate_argnums=(0,))
    return make(params)
