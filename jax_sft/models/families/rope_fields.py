"""Rotary positions in config.json: the base and its scaling, as old and new files spell them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jax_sft.config import ModelConfig, RopeScaling
from jax_sft.errors import UsageError
from jax_sft.models.families.unsupported import REMEDY, asks_for_nothing

_FIELDS = {
    "factor": "factor",
    "original_max_position_embeddings": "original_positions",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "truncate": "truncate",
    "attention_factor": "attention_factor",
}
_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
_OPTIONAL = {
    "llama3": ("original_max_position_embeddings",),
    "yarn": ("original_max_position_embeddings", "beta_fast", "beta_slow", "truncate", "attention_factor"),
}
_GROUPS = ("rope_parameters", "rope_scaling")
_APART = {"rope_type", "type", "rope_theta"}


def read_rope(
    raw: Mapping[str, Any], where: str, ignore: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`rope_theta` and `rope_scaling` of ModelConfig, as far as the file says them, and the other fields.

    Older files have `rope_theta` and `rope_scaling`, newer ones keep both under `rope_parameters`. Fields in
    `ignore`, such as `rope_scaling.mscale`, are passed over.

    Raises:
        UsageError: an unknown kind of scaling, or a field that is missing, unknown or malformed.
    """
    rest = {name: value for name, value in raw.items() if name not in (*_GROUPS, "rope_theta")}
    found: dict[str, Any] = {}
    if raw.get("rope_theta") is not None:
        found["rope_theta"] = typed("rope_theta", raw["rope_theta"], float, where)
    for group in _GROUPS:
        rope = raw.get(group)
        if rope is None:
            continue
        if not isinstance(rope, Mapping):
            raise UsageError(f"{where}: {group} is {rope!r}; expected an object")
        rope = {name: value for name, value in rope.items() if f"{group}.{name}" not in ignore}
        if rope.get("rope_theta") is not None:
            found["rope_theta"] = typed(f"{group}.rope_theta", rope["rope_theta"], float, where)
        found["rope_scaling"] = _read_scaling(group, rope, where)
    return found, rest


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """The fields that `read_rope` reads, in the older spelling, which every reader of such files knows."""
    scaling = config.rope_scaling
    if scaling.kind == "none":
        return {"rope_theta": config.rope_theta}
    fields = (*_NEEDED[scaling.kind], *_OPTIONAL.get(scaling.kind, ()))
    values = {name: getattr(scaling, _FIELDS[name]) for name in fields}
    # Zero stands for a value that follows from others.
    values = {name: value for name, value in values.items() if value != 0 or name == "truncate"}
    return {"rope_theta": config.rope_theta, "rope_scaling": {"rope_type": scaling.kind, **values}}


def typed(name: str, value: Any, kind: type, where: str) -> Any:
    """`value` as a bool, int or float that is not negative; UsageError naming the field if not."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind or (isinstance(value, int | float) and value < 0):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise UsageError(f"{where}: {name} is {value!r}; expected {wanted}")
    return value


def _read_scaling(group: str, rope: Mapping[str, Any], where: str) -> RopeScaling:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _NEEDED:
        known = ", ".join(_NEEDED)
        raise UsageError(f"{where}: {group} of type {kind!r} is not supported; known: {known}")
    needed, optional = _NEEDED[kind], _OPTIONAL.get(kind, ())
    given = {name for name, value in rope.items() if value is not None} - _APART
    given -= {name for name in given if name not in needed + optional and asks_for_nothing(name, rope[name])}
    missing, unknown = set(needed) - given, given - {*needed, *optional}
    if missing:
        raise UsageError(f"{where}: {group}.{min(missing)} is missing, which {kind!r} needs")
    if unknown:
        name = f"{group}.{min(unknown)}"
        raise UsageError(f"{where}: {name} is not supported for type {kind!r}{REMEDY.format(name)}")
    kinds = {field.name: type(field.default) for field in dataclasses.fields(RopeScaling)}
    values = {
        _FIELDS[name]: typed(f"{group}.{name}", rope[name], kinds[_FIELDS[name]], where) for name in given
    }
    if values.get("factor", 1.0) < 1.0:
        raise UsageError(f"{where}: {group}.factor is {values['factor']}; it stretches, so it is at least 1")
    return RopeScaling(kind="none" if kind == "default" else kind, **values)
