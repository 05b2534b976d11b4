"""How a run begins: its identity on disk, its start weights, or the state it goes on from."""

from dataclasses import asdict, dataclass
from importlib.metadata import version

import jax
from etils import epath

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import Run, Study
from jax_sft.data.batches import Batches
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import list_files, write_json
from jax_sft.models import Params
from jax_sft.models.lora import merge, split, without_adapters
from jax_sft.models.params import init_plain
from jax_sft.models.weights.read import load_pretrained, pretrained_config
from jax_sft.sharding import shardings_of
from jax_sft.study.document import differences, study_to_json
from jax_sft.study.folder import run_folder, snapshots_folder, state_folder, study_file, study_folder
from jax_sft.study.records import RunRecord
from jax_sft.study.starts import StartRun, parse_init
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.tokens.thoughts import opens_thinking
from jax_sft.tokens.tokenizer import Tokenizer
from jax_sft.training.step import TrainState, init_state


@dataclass(frozen=True)
class RunData:
    """What a run trains on: the text as tokens, laid out into the batches of every step."""

    tokenizer: Tokenizer
    template: ChatTemplate
    batches: Batches


LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")


def write_record(study: Study, run: Run, data: RunData, steps: list[int]) -> epath.Path:
    """Write the study and the run's record, or refuse a folder with saves of another configuration."""
    folder = run_folder(study, run.name)
    record = RunRecord(
        study=study.name,
        run=run,
        data_root=study.data_root,
        tokenizer_hash=data.tokenizer.hash,
        template_hash=data.template.hash,
        data_hash=data.batches.rows.hash,
        total_steps=data.batches.total_steps,
        snapshot_steps=tuple(steps),
        opens_thinking=opens_thinking(data.template),
        packing=str(data.batches.packing),
        versions={name: version(name) for name in LIBRARIES},
    )
    if _has_saves(folder) and (old := RunRecord.read(folder)):
        _refuse_another(folder, old, record)
    if jax.process_index() == 0:
        record.write(folder)
        write_json(study_file(study_folder(study)), {"study": study_to_json(study)})
    return folder


def _has_saves(folder: epath.Path) -> bool:
    """Whether training came so far that something was saved."""
    kinds = snapshots_folder(folder), state_folder(folder)
    return any(name.split("/")[0].isdecimal() for kind in kinds for name in list_files(kind))


def _refuse_another(folder: epath.Path, old: RunRecord, new: RunRecord) -> None:
    changed = new.changes_since(old)
    if changed:
        raise UsageError(
            f"{folder}: was made with another configuration ({'; '.join(changed)}); "
            "give the run another name or --root, or remove the folder"
        )


def start_params(study: Study, run: Run, wanted: Params) -> Params:
    """The weights before the first update, as the abstract `wanted` says.

    They are random, imported, or another run's snapshot; adapters are new.
    """
    base = _base_params(study, run, without_adapters(wanted))
    if not run.lora.rank:
        return base
    adapters, _ = split(wanted)
    make = jax.jit(
        lambda key: split(init_plain(run.model, key, run.param_dtype, run.lora))[0],
        out_shardings=shardings_of(adapters),
    )
    return merge(make(jax.random.key(run.seed)), base)


def _base_params(study: Study, run: Run, wanted: Params) -> Params:
    if run.init == "random":
        make = jax.jit(
            lambda key: init_plain(run.model, key, run.param_dtype), out_shardings=shardings_of(wanted)
        )
        return make(jax.random.key(run.seed))
    if start := parse_init(run.init):
        return _params_of_run(study, run, start, wanted)
    changed = differences(asdict(run.model), asdict(pretrained_config(run.init, run.init_ignore)))
    if changed:
        raise UsageError(
            f"run {run.name}: model does not fit the weights of {run.init}: {'; '.join(changed)}"
        )
    return load_pretrained(run.init, wanted, run.init_ignore)[1]


def _params_of_run(study: Study, run: Run, start: StartRun, wanted: Params) -> Params:
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
    return load_snapshot(folder, record.snapshot_steps[-1] if start.step is None else start.step, wanted)


def start_state(study: Study, run: Run, wanted: TrainState) -> TrainState:
    """The state before the first update, as the abstract `wanted` says."""
    params = start_params(study, run, wanted.params)
    make = jax.jit(
        lambda params: init_state(run, params), out_shardings=shardings_of(wanted), donate_argnums=(0,)
    )
    return make(params)
