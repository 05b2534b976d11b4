"""How a run begins: its identity on disk, its start weights, or the state it goes on from."""

from dataclasses import asdict
from importlib.metadata import version

import flax.linen as nn
import jax
from etils import epath
from jax.sharding import Mesh

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import LoraConfig, Run, StartRun, Study, parse_init, replace
from jax_sft.data.batches import Batches
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import write_json
from jax_sft.models.decoder import Params, init_params
from jax_sft.models.lora import merge, split
from jax_sft.models.weights.read import load_pretrained, pretrained_config
from jax_sft.study.document import differences, study_to_json
from jax_sft.study.folder import run_folder, snapshots_folder, state_folder, study_file, study_folder
from jax_sft.study.records import RunRecord
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.training.step import TrainState, abstract_state, cast_params, init_state

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")


def write_record(
    study: Study, run: Run, batches: Batches, template: ChatTemplate, steps: list[int]
) -> epath.Path:
    """Write the study and the run's record, or refuse a folder with saves of another configuration."""
    folder = run_folder(study, run.name)
    record = RunRecord(
        study=study.name,
        run=run,
        data_root=study.data_root,
        template_hash=template.hash,
        data_hash=batches.rows.hash,
        total_steps=batches.total_steps,
        snapshot_steps=tuple(steps),
        packing=str(batches.packing),
        versions={name: version(name) for name in LIBRARIES},
    )
    if _has_saves(folder) and (old := RunRecord.read(folder)):
        _refuse_another(folder, old, record)
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        record.write(folder)
        write_json(study_file(study_folder(study)), {"study": study_to_json(study)})
    return folder


def _has_saves(folder: epath.Path) -> bool:
    """Whether training came so far that something was saved."""
    kinds = snapshots_folder(folder), state_folder(folder)
    return any(path.name.isdecimal() for kind in kinds if kind.exists() for path in kind.iterdir())


def _refuse_another(folder: epath.Path, old: RunRecord, new: RunRecord) -> None:
    changed = differences(old.essence, new.essence)
    if changed:
        raise UsageError(
            f"{folder}: was made with another configuration ({'; '.join(changed)}); "
            "give the run another name or --root, or remove the folder"
        )


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
    if start := parse_init(run.init):
        return _params_of_run(study, run, start, target)
    changed = differences(asdict(run.model), asdict(pretrained_config(run.init, run.init_ignore)))
    if changed:
        raise UsageError(
            f"run {run.name}: model does not fit the weights of {run.init}: {'; '.join(changed)}"
        )
    return load_pretrained(run.init, target, run.init_ignore)[1]


def _params_of_run(study: Study, run: Run, start: StartRun, target: Params) -> Params:
    """A snapshot of the run that `run.init` names, by default the last of its schedule."""
    folder = run_folder(study, start.run)
    record = RunRecord.read(folder)
    if record is None:
        raise JaxSftError(
            f"run {run.name} starts from run {start.run}, which is not trained yet: train it first"
        )
    changed = differences(asdict(record.run.model), asdict(run.model))
    if changed:
        raise UsageError(f"run {run.name}: model is not that of run {start.run}: {'; '.join(changed)}")
    return load_snapshot(folder, record.snapshot_steps[-1] if start.step is None else start.step, target)


def start_state(study: Study, run: Run, mesh: Mesh) -> TrainState:
    """The state before the first update."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(run, mesh))
    params = start_params(study, run, mesh)
    make = jax.jit(lambda params: init_state(run, params), out_shardings=shardings, donate_argnums=(0,))
    return make(params)
