"""Pretrained weights into the parameter tree, from Hugging Face folders and the packaged SmolLM2."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from jax_sft import files
from jax_sft.config import ModelConfig
from jax_sft.errors import JaxSftError
from jax_sft.models.families import Family, Weight, family_of_huggingface
from jax_sft.models.gguf import smollm2_config, smollm2_source
from jax_sft.models.safetensors import SafetensorsFolder, TensorSource

Params = dict[str, Any]
_LISTED = 5


def pretrained_config(spec: str) -> ModelConfig:
    """The configuration of pretrained weights: `smollm2`, or a folder with config.json (local or gs://).

    Raises:
        UsageError: no such folder, or a model the decoder cannot be.
    """
    if spec == "smollm2":
        return smollm2_config()
    return _read_folder_config(epath.Path(spec))[1]


def load_pretrained(spec: str, target: Params | None = None) -> tuple[ModelConfig, Params]:
    """Weights of `smollm2` or a Hugging Face folder (safetensors; one file or shards; fp32, fp16 or bf16).

    Args:
        spec: `smollm2`, or a folder, local or gs://.
        target: a tree of `jax.ShapeDtypeStruct` with shardings. Each process then reads only the bytes of
            its own shards. Without it the result is numpy float32 on the host.

    Returns:
        The model's configuration, and its parameters stacked over layers.

    Raises:
        UsageError: no such folder or package, pickled weights, or an unsupported config.json.
        JaxSftError: damaged files, or weights that are missing, unexpected or of another shape than
            config.json says.
    """
    source: TensorSource
    if spec == "smollm2":
        config, source = smollm2_config(), smollm2_source()
        family = family_of_huggingface({"model_type": "llama"})
    else:
        folder = epath.Path(spec)
        family, config = _read_folder_config(folder)
        source = SafetensorsFolder(folder)
    check_tensors(family, config, source.shapes(), spec)
    params: Params = {}
    for weight in family.table(config):
        leaf = None if target is None else _at(target, weight.keys)
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
    repeated = {"lm_head.weight"} if config.tie_embeddings else set()
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


def _read_folder_config(folder: epath.Path) -> tuple[Family, ModelConfig]:
    path = folder / "config.json"
    raw = files.read_json(path)
    family = family_of_huggingface(raw, str(path))
    return family, family.read_config(raw, str(path))


def _load(weight: Weight, config: ModelConfig, source: TensorSource, leaf: Any) -> Any:
    names, shape = weight.names(config), weight.shape(config)
    if weight.stacked:
        shape = (len(names), *shape)
    read, whole = _reader(weight, config, source), (slice(None),) * len(shape)
    if leaf is None:
        return read(whole, np.dtype(np.float32))
    if leaf.shape != shape:
        raise ValueError(f"{weight.path}: target has shape {leaf.shape}, the weights {shape}")
    return jax.make_array_from_callback(
        shape, leaf.sharding, lambda index: read(index or whole, np.dtype(leaf.dtype))
    )


def _reader(
    weight: Weight, config: ModelConfig, source: TensorSource
) -> Callable[[tuple[slice, ...], np.dtype], np.ndarray]:
    """A function that gives any block of the parameter, touching only the block's bytes of the files."""
    names = weight.names(config)

    def layers(index: tuple[slice, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
        for name in names[index[0]]:
            yield weight.from_tensor(source.read(name), config)[index[1:]].astype(dtype)

    def read(index: tuple[slice, ...], dtype: np.dtype) -> np.ndarray:
        if weight.stacked:
            return np.stack(list(layers(index, dtype)))
        block = weight.from_tensor(source.read(names[0]), config)[index]
        return np.ascontiguousarray(block, dtype)

    return read


def _at(tree: Params, keys: tuple[str, ...]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def _put(tree: Params, keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value
