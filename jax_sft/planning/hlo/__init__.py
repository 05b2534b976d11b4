"""What a program compiled for TPU does, read from its optimized text: by one door."""

from jax_sft.planning.hlo import cost, parse
from jax_sft.planning.hlo.cost import Cost, Traffic

__all__ = ["Cost", "Traffic", "cost_of"]


def cost_of(text: str, devices_per_slice: int, slices: int) -> Cost:
    """Work per device of the module whose optimized text (`compiled.as_text()`) this is."""
    return cost.cost_of(parse.parse(text), devices_per_slice, slices)
