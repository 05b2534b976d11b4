"""What a family of models is: names for its weights, fields of its config.json, presets of its sizes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from jax_sft.config import ModelConfig
from jax_sft.errors import UsageError
from jax_sft.models.families.rope_fields import read_rope, typed, write_rope
from jax_sft.models.families.unsupported import REMEDY, unsupported

Path = tuple[str, ...]
"""Keys into the parameter tree, for example ("layers", "attention", "q", "kernel")."""


@dataclass(frozen=True)
class Weight:
    """One parameter here and its name there.

    Hugging Face keeps a matrix as [outputs, inputs], with heads folded into one axis; the parameter tree
    keeps [*inputs, *outputs]. Axes are letters: D model, H heads, K kv heads, d head, F mlp, V vocab, 1 one.
    """

    path: str
    """Slash-separated keys; those under `layers/` are stacked over layers."""
    name: str
    """Tensor name in the checkpoint, `{}` standing for the layer."""
    inputs: str = ""
    outputs: str = ""
    transposed: bool = True
    """False for a table that both sides keep as [outputs, inputs]: the embedding."""
    part: Literal["", "q", "k", "v"] = ""
    """Which heads of a fused tensor the parameter is.

    Such a tensor holds, for each k/v head, the q heads that share it, then k, then v.
    """

    @property
    def keys(self) -> Path:
        """The path as keys of the parameter tree."""
        return tuple(self.path.split("/"))

    @property
    def stacked(self) -> bool:
        """Whether the parameter has a leading layer axis."""
        return self.keys[0] == "layers"

    def names(self, config: ModelConfig) -> list[str]:
        """The tensors the parameter is made of: one, or one for every layer."""
        count = config.num_layers if self.stacked else 1
        return [self.name.format(layer) for layer in range(count)]

    def tensor_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Shape of one tensor of the checkpoint."""
        if self.part:
            return config.num_kv_heads * _fused_heads(config) * config.head_dim, config.hidden_size
        return tuple(math.prod(_sizes(config, axes)) for axes in (self.outputs, self.inputs) if axes)

    def shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Shape of the parameter, without the layer axis."""
        axes = self.inputs + self.outputs if self.transposed else self.outputs + self.inputs
        return _sizes(config, axes)

    def from_tensor(
        self, tensor: np.ndarray, config: ModelConfig, index: tuple[slice, ...] = ()
    ) -> np.ndarray:
        """A block of the parameter, without the layer axis, out of a tensor of the checkpoint.

        The result is a view; of a fused tensor, whose heads do not lie evenly, a copy of the block's heads.
        """
        if self.part:
            return _heads_of_fused(tensor, config, self.part, index)
        unfolded = tensor.reshape(_sizes(config, self.outputs + self.inputs))
        if self.transposed:
            unfolded = np.moveaxis(unfolded, range(len(self.outputs)), range(-len(self.outputs), 0))
        return unfolded[index]

    def to_tensor(self, parameter: np.ndarray, config: ModelConfig) -> np.ndarray:
        """The inverse of `from_tensor`, contiguous; of a part, its heads as [K, q heads or 1, d, D]."""
        if self.transposed:
            parameter = np.moveaxis(parameter, range(-len(self.outputs), 0), range(len(self.outputs)))
        if self.part:
            return parameter.reshape(config.num_kv_heads, -1, config.head_dim, config.hidden_size)
        return np.ascontiguousarray(parameter).reshape(self.tensor_shape(config))


def _fused_heads(config: ModelConfig) -> int:
    """Heads that a fused tensor holds for each k/v head."""
    return config.num_heads // config.num_kv_heads + 2


def _heads_of_fused(
    tensor: np.ndarray, config: ModelConfig, part: str, index: tuple[slice, ...]
) -> np.ndarray:
    """The block `index` of the parameter [D, heads, d] that is the q, k or v of a fused tensor."""
    group = config.num_heads // config.num_kv_heads
    inputs, heads, inner = (*index, *[slice(None)] * (3 - len(index)))
    fused_KGdD = tensor.reshape(config.num_kv_heads, group + 2, config.head_dim, config.hidden_size)
    if part == "q":
        start, stop, _ = heads.indices(config.num_heads)
        first, last = start // group, -(-stop // group)
        near_HdD = fused_KGdD[first:last, :group, inner, inputs]
        near_HdD = near_HdD.reshape(-1, *near_HdD.shape[2:])
        block_HdD = near_HdD[start - first * group : stop - first * group]
    else:
        block_HdD = fused_KGdD[heads, group if part == "k" else group + 1, inner, inputs]
    return np.moveaxis(block_HdD, 2, 0)


def _sizes(config: ModelConfig, axes: str) -> tuple[int, ...]:
    size = {
        "D": config.hidden_size,
        "H": config.num_heads,
        "K": config.num_kv_heads,
        "d": config.head_dim,
        "F": config.mlp_size,
        "V": config.vocab_size,
        "1": 1,
    }
    return tuple(size[axis] for axis in axes)


_READ_APART = ("architectures", "id2label", "label2id", "num_labels")
_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "mlp_size",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
    "max_position_embeddings": "max_positions",
}
_NEEDED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class Family:
    """A page of facts about models that share an architecture."""

    model_type: str
    """As config.json spells it."""
    architecture: str
    """Class name in transformers."""
    weights: tuple[Weight, ...]
    switches: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ModelConfig that are the same in every model of the family."""
    needed: tuple[str, ...] = ()
    """Fields of config.json without a default that the families share."""
    harmless: tuple[str, ...] = ()
    """Fields of config.json that say nothing while a switch is off, which is off where it is not named."""
    presets: Mapping[str, ModelConfig] = field(default_factory=dict)
    """Published sizes by name."""

    def table(self, config: ModelConfig) -> tuple[Weight, ...]:
        """The weights a model of this configuration has."""
        if config.head == "score":
            scores = Weight("score/kernel", "score.weight", inputs="D", outputs="1")
            return (*(weight for weight in self.weights if weight.path != "head/kernel"), scores)
        absent = "head/kernel" if config.tie_embeddings else None
        return tuple(weight for weight in self.weights if weight.path != absent)

    def read_config(
        self, raw: Mapping[str, Any], where: str = "config.json", ignore: Sequence[str] = ()
    ) -> ModelConfig:
        """ModelConfig of a config.json, as if it had none of the fields in `ignore` (`rope_scaling.mscale`).

        Raises:
            UsageError: a field is missing, malformed, or asks for something the decoder does not do.
        """
        raw = {name: value for name, value in raw.items() if name not in ignore}
        head = self._read_head(raw, where)
        rope, raw = read_rope(raw, where, ignore)
        self._refuse_unsupported(raw, where)
        missing = [name for name in (*_NEEDED, *self.needed) if raw.get(name) is None]
        if missing:
            raise UsageError(f"{where}: missing {', '.join(missing)}")
        values = {
            ours: typed(theirs, raw[theirs], type(getattr(ModelConfig, ours)), where)
            for theirs, ours in _FIELDS.items()
            if raw.get(theirs) is not None
        }
        values.setdefault("num_kv_heads", values["num_heads"])
        values.setdefault("head_dim", values["hidden_size"] // values["num_heads"])
        values.setdefault("tie_embeddings", False)
        return ModelConfig(**values, **rope, **self.switches, head=head)

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """config.json of a model; `read_config` gives the same configuration back."""
        values = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
        scores = config.head == "score"
        return {
            "architectures": [self.scoring_architecture if scores else self.architecture],
            "model_type": self.model_type,
            **values,
            **write_rope(config),
            # transformers keeps the number of outputs as their names.
            **({"id2label": {"0": "score"}, "label2id": {"score": 0}} if scores else {}),
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
        }

    @property
    def scoring_architecture(self) -> str:
        """Class name in transformers of the model with one number for a row as its output."""
        return self.architecture.replace("ForCausalLM", "ForSequenceClassification")

    def _read_head(self, raw: Mapping[str, Any], where: str) -> Literal["vocabulary", "score"]:
        named = raw.get("architectures") or [self.architecture]
        if named == [self.architecture]:
            return "vocabulary"
        if named != [self.scoring_architecture]:
            known = f"{self.architecture} and {self.scoring_architecture}"
            raise UsageError(f"{where}: architectures is {named!r}; supported are {known}")
        outputs = raw.get("num_labels") or len(raw.get("id2label") or (0, 1))
        if outputs != 1:
            raise UsageError(f"{where}: num_labels is {outputs}; a head that scores has 1 output")
        return "score"

    def _refuse_unsupported(self, raw: Mapping[str, Any], where: str) -> None:
        for name, problem in unsupported(raw, {*self.harmless, *_FIELDS, *_READ_APART}):
            raise UsageError(f"{where}: {name} {problem}{REMEDY.format(name)}")
