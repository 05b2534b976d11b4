"""What a family of models is: names for its weights, fields of its config.json, presets of its sizes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jax_sft.config import ModelConfig
from jax_sft.errors import UsageError

Path = tuple[str, ...]
"""Keys into the parameter tree, for example ("layers", "attention", "q", "kernel")."""


@dataclass(frozen=True)
class Weight:
    """One parameter here and its name there.

    Hugging Face keeps a matrix as [outputs, inputs], with heads folded into one axis; the parameter tree
    keeps [*inputs, *outputs]. Axes are letters: D model, H heads, K kv heads, d head, F mlp, V vocab.
    """

    path: str
    """Slash-separated keys; those under `layers/` are stacked over layers."""
    name: str
    """Tensor name in the checkpoint, `{}` standing for the layer."""
    inputs: str = ""
    outputs: str = ""
    transposed: bool = True
    """False for a table that both sides keep as [outputs, inputs]: the embedding."""

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
        return tuple(math.prod(_sizes(config, axes)) for axes in (self.outputs, self.inputs) if axes)

    def shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Shape of the parameter, without the layer axis."""
        axes = self.inputs + self.outputs if self.transposed else self.outputs + self.inputs
        return _sizes(config, axes)

    def from_tensor(self, tensor: np.ndarray, config: ModelConfig) -> np.ndarray:
        """A tensor of the checkpoint as the parameter, without the layer axis: a view, nothing is copied."""
        unfolded = tensor.reshape(_sizes(config, self.outputs + self.inputs))
        if not self.transposed:
            return unfolded
        return np.moveaxis(unfolded, range(len(self.outputs)), range(-len(self.outputs), 0))

    def to_tensor(self, parameter: np.ndarray, config: ModelConfig) -> np.ndarray:
        """The inverse of `from_tensor`, contiguous."""
        if self.transposed:
            parameter = np.moveaxis(parameter, range(-len(self.outputs), 0), range(len(self.outputs)))
        return np.ascontiguousarray(parameter).reshape(self.tensor_shape(config))


def _sizes(config: ModelConfig, axes: str) -> tuple[int, ...]:
    size = {
        "D": config.hidden_size,
        "H": config.num_heads,
        "K": config.num_kv_heads,
        "d": config.head_dim,
        "F": config.mlp_size,
        "V": config.vocab_size,
    }
    return tuple(size[axis] for axis in axes)


# Fields of config.json that say nothing about the forward pass of a language model.
_HARMLESS = frozenset(
    {
        "_name_or_path",
        "architectures",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "initializer_range",
        "is_llama_config",
        "keys_to_ignore_at_inference",
        "model_type",
        "pad_token_id",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "use_cache",
    }
)
# Fields with the only values that change nothing; None always passes.
_OFF: dict[str, tuple[Any, ...]] = {
    "attention_dropout": (0, 0.0),
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "pretraining_tp": (1,),
    "rope_interleaved": (False,),
    "rope_scaling": (),
    "tie_encoder_decoder": (False,),
}
_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "mlp_size",
    "rope_theta": "rope_theta",
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
    switches: Mapping[str, bool] = field(default_factory=dict)
    """Fields of ModelConfig that are the same in every model of the family."""
    needed: tuple[str, ...] = ()
    """Fields of config.json without a default that the families share."""
    off: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Further fields of config.json, each with the values under which it changes nothing."""
    harmless: tuple[str, ...] = ()
    """Further fields of config.json that say nothing while those in `off` are off."""
    presets: Mapping[str, ModelConfig] = field(default_factory=dict)
    """Published sizes by name."""

    def table(self, config: ModelConfig) -> tuple[Weight, ...]:
        """The weights a model of this configuration has."""
        absent = "head/kernel" if config.tie_embeddings else None
        return tuple(weight for weight in self.weights if weight.path != absent)

    def read_config(self, raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
        """ModelConfig of a config.json.

        Raises:
            UsageError: a field is missing, malformed, or asks for something the decoder does not do.
        """
        raw = {**raw}
        _fold_rope_parameters(raw, where)
        self._refuse_unsupported(raw, where)
        missing = [name for name in (*_NEEDED, *self.needed) if raw.get(name) is None]
        if missing:
            raise UsageError(f"{where}: missing {', '.join(missing)}")
        values = {
            ours: _typed(theirs, raw[theirs], type(getattr(ModelConfig, ours)), where)
            for theirs, ours in _FIELDS.items()
            if raw.get(theirs) is not None
        }
        values.setdefault("num_kv_heads", values["num_heads"])
        values.setdefault("head_dim", values["hidden_size"] // values["num_heads"])
        values.setdefault("tie_embeddings", False)
        return ModelConfig(**values, **self.switches)

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """config.json of a model; `read_config` gives the same configuration back."""
        values = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            **values,
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
        }

    def _refuse_unsupported(self, raw: Mapping[str, Any], where: str) -> None:
        off = {**_OFF, **self.off}
        for name, value in raw.items():
            if name in _HARMLESS or name in self.harmless or name in _FIELDS or value is None:
                continue
            if name not in off:
                raise UsageError(f"{where}: {name} ({value!r}) is not supported for {self.model_type}")
            if any(entry not in off[name] for entry in (value if isinstance(value, list) else [value])):
                allowed = " or ".join(map(repr, off[name])) or "null"
                raise UsageError(f"{where}: {name} is {value!r}; only {allowed} is supported")


def _typed(name: str, value: Any, kind: type, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind or (isinstance(value, int | float) and value < 0):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise UsageError(f"{where}: {name} is {value!r}; expected {wanted}")
    return value


def _fold_rope_parameters(raw: dict[str, Any], where: str) -> None:
    """Newer files keep rope_theta and the scaling together under `rope_parameters`, or `rope_scaling`."""
    for group in ("rope_parameters", "rope_scaling"):
        rope = raw.get(group)
        if rope is None:
            continue
        if not isinstance(rope, Mapping):
            raise UsageError(f"{where}: {group} is {rope!r}; expected an object")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UsageError(f"{where}: {group} of type {kind!r} is not supported; only 'default' is")
        extra = set(rope) - {"rope_type", "type", "rope_theta"}
        if extra:
            raise UsageError(f"{where}: {group}.{min(extra)} is not supported")
        if "rope_theta" in rope:
            raw["rope_theta"] = rope["rope_theta"]
        del raw[group]
