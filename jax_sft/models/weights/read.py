"""Pretrained weights into the parameter tree, from Hugging Face folders and the packaged SmolLM2."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jax_sft import files
from jax_sft.config import ModelConfig, Study, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.hub import CONFIG, WEIGHTS, local_folder
from jax_sft.models import Params
from jax_sft.models.families import Family, Weight, family_of_huggingface
from jax_sft.models.weights.gguf import smollm2_config, smollm2_source
from jax_sft.models.weights.safetensors import SafetensorsFolder, TensorSource
from jax_sft.study.starts import parse_init

_LISTED = 5


def pretrained_config(spec: str, ignore: Sequence[str] = ()) -> ModelConfig:
    """The configuration of pretrained weights: `smollm2`, a folder with config.json, or a hub id.

    Fields of config.json that are in `ignore` are passed over.

    Raises:
        UsageError: no such folder or model, or one that the decoder cannot be.
        JaxSftError: the hub cannot be reached.
    """
    if spec == "smollm2":
        return smollm2_config()
    return _read_folder_config(local_folder(spec, CONFIG), ignore)[1]


def with_models(study: Study, names: Collection[str]) -> Study:
    """The study with the models that the named runs leave to their start weights, read from these.

    A run that starts from pretrained weights or another run and says nothing of its model, which is then
    the default one, has the model of what it starts from. UsageError or JaxSftError as `pretrained_config`.
    """
    models: dict[str, ModelConfig] = {}
    wanted = set(names)
    for run in reversed(study.runs):  # a run stands after the one that it starts from
        if run.name in wanted and (start := parse_init(run.init)):
            wanted.add(start.run)
    for run in study.runs:
        models[run.name] = run.model
        if run.name in wanted and run.init != "random" and run.model == ModelConfig():
            start = parse_init(run.init)
            models[run.name] = models[start.run] if start else pretrained_config(run.init, run.init_ignore)
    return replace(study, runs=tuple(replace(run, model=models[run.name]) for run in study.runs))


def load_pretrained(
    spec: str, wanted: Params | None = None, ignore: Sequence[str] = ()
) -> tuple[ModelConfig, Params]:
    """Weights of `smollm2` or a Hugging Face folder (safetensors; one file or shards; fp32, fp16 or bf16).

    Args:
        spec: `smollm2`, a folder (local or gs://), or a hub id such as `Qwen/Qwen3-8B-Base`.
        wanted: a tree of `jax.ShapeDtypeStruct` with shardings. Each process then reads only the bytes of
            its own shards. Without it the result is numpy float32 on the host.
        ignore: fields of config.json that are passed over.

    Returns:
        The model's configuration, and its parameters stacked over layers.

    Raises:
        UsageError: no such folder, model or package, pickled weights, or an unsupported config.json.
        JaxSftError: damaged files, no answer from the hub, or weights that are missing, unexpected or of
            another shape than config.json says.
    """
    source: TensorSource
    if spec == "smollm2":
        config, source = smollm2_config(), smollm2_source()
        family = family_of_huggingface({"model_type": "llama"})
    else:
        folder = local_folder(spec, WEIGHTS)
        family, config = _read_folder_config(folder, ignore)
        source = SafetensorsFolder(folder)
    check_tensors(family, config, source.shapes(), spec)
    params: Params = {}
    for weight in family.table(config):
        leaf = None if wanted is None else _at(wanted, weight.keys)
        _put(params, weight.keys, _load(weight, config, source, leaf))
    return config, params


def check_tensors(
    family: Family, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """JaxSftError naming the tensors that are missing, unexpected or misshapen, a few of each."""
    wanted = {
        name: weight.tensor_shape(config) for weight in family.table(config) for name in weight.names(config)
    }
    faults = []
    missing = [name for name in wanted if name not in shapes]
    # A checkpoint of a tied model may repeat the table as its head; old ones store the rotary frequencies.
    repeated = {"lm_head.weight", "output.weight"} if config.tie_embeddings else set()
    extra = [
        name
        for name in shapes
        if name not in wanted and name not in repeated and not name.endswith("rotary_emb.inv_freq")
    ]
    misshapen = [
        f"{name} (is {list(shapes[name])}, config.json says {list(shape)})"
        for name, shape in wanted.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    for label, names in (("missing", missing), ("unexpected", extra), ("misshapen", misshapen)):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            faults.append(f"{label}: {', '.join(names[:_LISTED])}{more}")
    if faults:
        raise JaxSftError(f"{where}: the weights do not fit config.json; {'; '.join(faults)}")


def _read_folder_config(folder: epath.Path, ignore: Sequence[str]) -> tuple[Family, ModelConfig]:
    path = folder / "config.json"
    raw = files.read_json(path)
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: expected an object, found {type(raw).__name__}")
    family = family_of_huggingface(raw, str(path))
    return family, family.read_config(raw, str(path), ignore)


def _load(weight: Weight, config: ModelConfig, source: TensorSource, leaf: Any) -> Any:
    names, shape = weight.names(config), weight.shape(config)
    if weight.stacked:
        shape = (len(names), *shape)
    whole = (slice(None),) * len(shape)
    if leaf is None:
        block, axes = _read_block(weight, config, source, whole)
        return np.ascontiguousarray(block.transpose(axes), np.float32)
    if leaf.shape != shape:
        raise ValueError(f"{weight.path}: shape {leaf.shape} is wanted, the weights {shape}")
    return _place(leaf, lambda index: _read_block(weight, config, source, index))


def _place(
    leaf: jax.ShapeDtypeStruct, read: Callable[[tuple[slice, ...]], tuple[np.ndarray, tuple[int, ...]]]
) -> jax.Array:
    """The array `leaf` describes, each distinct block read once, while the one before is put down.

    `jax.make_array_from_callback` would hold all of the process's blocks on the host at once. The devices
    turn the axes and widen the type, which they do many times faster than numpy.
    """
    holders: dict[tuple[Any, ...], list[Any]] = {}
    indices = leaf.sharding.addressable_devices_indices_map(leaf.shape)
    for device, index in indices.items():
        holders.setdefault(tuple((part.start, part.stop) for part in index), []).append(device)
    placed: list[jax.Array] = []
    for bounds, devices in holders.items():
        block, axes = read(tuple(slice(*bound) for bound in bounds))
        jax.block_until_ready(placed)
        placed += [_turn(jax.device_put(block, device), axes, jnp.dtype(leaf.dtype)) for device in devices]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, placed)


@partial(jax.jit, static_argnums=(1, 2))
def _turn(stored: jax.Array, axes: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return stored.transpose(axes).astype(dtype)


def _read_block(
    weight: Weight, config: ModelConfig, source: TensorSource, index: tuple[slice, ...]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """A block of the parameter as it lies in the files, type included, and the axes that turn it right.

    Copied in the order of the files, it touches only its own bytes of them, and each once.
    """
    names = weight.names(config)
    chosen, inner = (names[index[0]], index[1:]) if weight.stacked else (names, index)
    for layer, name in enumerate(chosen):
        part = weight.from_tensor(source.read(name), config, inner)
        if layer == 0:
            order = tuple(int(axis) for axis in np.argsort([-step for step in part.strides], kind="stable"))
            block = np.empty((len(chosen), *part.transpose(order).shape), part.dtype)
        if part.dtype != block.dtype:
            block = block.astype(np.float32)
        block[layer] = part.transpose(order)
    turned = tuple(int(axis) for axis in np.argsort(order))
    if not weight.stacked:
        return block[0], turned
    return block, (0, *(axis + 1 for axis in turned))


def _at(tree: Params, keys: tuple[str, ...]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def _put(tree: Params, keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value
