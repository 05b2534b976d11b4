"""A judge as a study uses it: a page, and the model that answers for it."""

from dataclasses import dataclass, field
from typing import Literal

Part = Literal["answer", "reasoning", "all"]
PARTS: tuple[Part, ...] = ("answer", "reasoning", "all")


@dataclass(frozen=True)
class JudgeConfig:
    """A model that judges completions, swapped into the sweep's chips when they are all drawn."""

    name: str
    """Unique in the study; its metrics begin with it (`qwen3guard_unsafe`)."""
    page: str = ""
    """Prompt and reading: qwen3guard, harmbench, rubric_harm, … (docs/judges.md); empty: that of the name."""
    model: str = ""
    """Weights: a model folder, a hub id or `smollm2`; empty means those that the page was made for."""
    endpoint: str = ""
    """An OpenAI-compatible server that answers in its place (`http://host/v1`); `model` is its name there."""
    tokenizer: str = ""
    """Empty means the model's own."""
    template: str = ""
    """Writes the turns: `auto` (the model's own), `chatml`, … or a jinja file; empty: as the page says."""
    template_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Variables of the template, for example `enable_thinking False`."""
    parts: tuple[Part, ...] = ("answer",)
    """What of a completion is judged, each apart: the answer after the thinking, the reasoning, all of it."""
    max_new_tokens: int = 0
    """Longest answer of the judge, in tokens; 0 means as the page says."""
    context: int = 0
    """Longest prompt plus answer; 0: 4096, or what the model can. What is judged is cut to fit it."""
    slots: int = 0
    """Sequences decoded at once; 0 means the evaluation's."""
    init_ignore: tuple[str, ...] = ()
    """Fields of the model's config.json to pass over, where it computes the same without."""

    def __post_init__(self) -> None:
        """A judge that names no page has the one of its name."""
        object.__setattr__(self, "page", self.page or self.name)
