"""A model as a folder that transformers, vLLM and `load_pretrained` read."""

from typing import Any

import numpy as np
from etils import epath

from jax_sft import files
from jax_sft.config import ModelConfig
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.models.families import Weight, family_of
from jax_sft.models.weights.safetensors import SHARD_BYTES, write_shards
from jax_sft.tokens.rendering import stop_ids
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.tokens.tokenizer import Tokenizer

_LAST = "config.json"
"""The file that says that the others are there."""


def write_huggingface(
    folder: epath.PathLike,
    config: ModelConfig,
    params: dict[str, Any],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    shard_bytes: int = SHARD_BYTES,
    family: str = "",
) -> None:
    """Write bf16 safetensors, config.json, tokenizer, chat template and generation_config.json.

    The folder appears whole or not at all; in a bucket, where files move one by one, config.json comes last.
    What an interrupted export left is cleared away. Importing it gives bf16 parameters back bit for bit.

    Args:
        folder: must not exist, or be empty.
        config: of the model.
        params: the parameter tree, stacked over layers; float32 values are rounded to bf16.
        tokenizer: written as tokenizer.json and tokenizer_config.json.
        template: written as the tokenizer's chat template, its options as defaults.
        shard_bytes: most bytes of weights in one file.
        family: under whose names, for example `internlm2`; by default the first with the model's switches.

    Raises:
        UsageError: the folder has content, no family has the model's switches, or the tokenizer has more
            tokens than the embedding table rows.
        JaxSftError: the disk is full, or will not be written.
    """
    target = epath.Path(folder)
    scratch = _scratch(target)
    if scratch.exists():
        _clear(target)
    if target.exists() and (not target.is_dir() or any(True for _ in target.iterdir())):
        raise UsageError(f"{target}: already there; export into a new folder")
    page = family_of(config, family)
    tokenizer.check_fits(config.vocab_size, str(target))
    tokens = _special_tokens(tokenizer, template)
    try:
        scratch.mkdir(parents=True)
        tensors = Tensors(page.table(config), config, params)
        write_shards(scratch, tensors.shapes, tensors.read, shard_bytes=shard_bytes)
        tokenizer.save(scratch, template.portable)
        files.write_json(scratch / "config.json", {**page.write_config(config), **tokens})
        files.write_json(scratch / "generation_config.json", {"do_sample": False, **tokens})
        _move(scratch, target)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise JaxSftError(
            f"{target}: cannot be written ({reason}), and nothing of it is left; export to a place with room"
        ) from error
    finally:
        _clear(target)


def _special_tokens(tokenizer: Tokenizer, template: ChatTemplate) -> dict[str, Any]:
    """Ids that generation wants to know."""
    stops = stop_ids(tokenizer, template)
    tokens = {"eos_token_id": list(stops) if len(stops) > 1 else stops[0], "pad_token_id": tokenizer.pad_id}
    if "bos_token" in tokenizer.named_tokens:
        tokens["bos_token_id"] = tokenizer.token_id(tokenizer.named_tokens["bos_token"])
    return tokens


def _move(scratch: epath.Path, target: epath.Path) -> None:
    """Put a finished export in its place, which is free or an empty folder."""
    if target.exists():
        target.rmdir()
    if files.in_bucket(target):
        target.mkdir(exist_ok=True)
        for path in sorted(scratch.iterdir(), key=lambda path: path.name == _LAST):
            path.rename(target / path.name)
    else:
        scratch.rename(target)


def is_exported(folder: epath.PathLike) -> bool:
    """Whether the folder holds a whole export."""
    return (epath.Path(folder) / _LAST).exists()


def _scratch(target: epath.Path) -> epath.Path:
    """Where an export is made before it is moved to `target`."""
    return target.parent / f".{target.name}.partial"


def _clear(target: epath.Path) -> None:
    """Remove what an export left that was interrupted, before or while it was moved."""
    scratch = _scratch(target)
    if scratch.exists():
        scratch.rmtree()
        if files.in_bucket(target) and target.exists() and not is_exported(target):
            target.rmtree()


class Tensors:
    """The checkpoint's tensors, cut out of the parameter tree one at a time."""

    def __init__(self, table: tuple[Weight, ...], config: ModelConfig, params: dict[str, Any]) -> None:
        self._config, self._params = config, params
        # A fused tensor is made of several parameters.
        self._cut: dict[str, list[tuple[Weight, int]]] = {}
        for weight in table:
            for layer, name in enumerate(weight.names(config)):
                self._cut.setdefault(name, []).append((weight, layer))
        self.shapes = {name: cut[0][0].tensor_shape(config) for name, cut in self._cut.items()}

    def read(self, name: str) -> np.ndarray:
        cuts = [
            weight.to_tensor(self._parameter(weight, layer), self._config)
            for weight, layer in self._cut[name]
        ]
        return cuts[0] if len(cuts) == 1 else np.concatenate(cuts, axis=1).reshape(self.shapes[name])

    def _parameter(self, weight: Weight, layer: int) -> np.ndarray:
        parameter: Any = self._params
        for key in weight.keys:
            parameter = parameter[key]
        return np.asarray(parameter[layer] if weight.stacked else parameter)
