"""Every family the decoder can be, found by config.json, by configuration or by the name of a size."""

from collections.abc import Mapping
from typing import Any

from jax_sft.config import ModelConfig
from jax_sft.errors import UsageError
from jax_sft.models.families import internlm2, llama, qwen2, qwen3
from jax_sft.models.families.family import Family, Weight

__all__ = [
    "FAMILIES",
    "PRESETS",
    "Family",
    "Weight",
    "family_of",
    "family_of_huggingface",
    "model_config_from_huggingface",
]

FAMILIES: dict[str, Family] = {
    page.FAMILY.model_type: page.FAMILY for page in (llama, qwen2, qwen3, internlm2)
}
PRESETS: dict[str, ModelConfig] = {
    name: config for family in FAMILIES.values() for name, config in family.presets.items()
}
"""Published models by name, for example PRESETS["qwen3-14b"]."""


def family_of(config: ModelConfig, name: str = "") -> Family:
    """The family under whose names a model is exported: the first that has its switches, or the one named.

    Without a name, a model that came as InternLM2 goes out as the Llama that it equals, which other programs
    load without code of its own.

    Raises:
        UsageError: no such family, or it has other switches than the model.
    """
    if name and name not in FAMILIES:
        raise UsageError(f"no family {name!r}; known: {', '.join(FAMILIES)}")
    for family in [FAMILIES[name]] if name else FAMILIES.values():
        wanted = {"qk_norm": False, "qkv_bias": False, **family.switches}
        if all(getattr(config, switch) == value for switch, value in wanted.items()):
            return family
    if name:
        raise UsageError(f"model: has qk_norm {config.qk_norm}, qkv_bias {config.qkv_bias}, unlike {name}")
    raise UsageError("model: no Hugging Face architecture here has both qk_norm and qkv_bias; turn one off")


def family_of_huggingface(raw: Mapping[str, Any], where: str = "config.json") -> Family:
    """The family a config.json names by its model_type; UsageError when it is none of ours."""
    model_type = raw.get("model_type")
    if model_type not in FAMILIES:
        raise UsageError(f"{where}: model_type is {model_type!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def model_config_from_huggingface(raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """ModelConfig of a parsed config.json.

    Args:
        raw: the file's content.
        where: what to call the file in errors.

    Raises:
        UsageError: an unknown model_type, a missing field, or a field that asks for something the decoder
            does not do, by name.
    """
    return family_of_huggingface(raw, where).read_config(raw, where)
