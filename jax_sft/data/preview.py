"""What to see before a run: its first row as the model sees it, and what is probably not meant."""

import itertools
import re

import numpy as np

from jax_sft.config import ModelConfig, Run
from jax_sft.data.batches import Batches
from jax_sft.responses.thinking import OPEN
from jax_sft.tokens.rendering import end_of_turn_text
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.tokens.thoughts import closes_thinking
from jax_sft.tokens.tokenizer import Tokenizer

LEARNT = ("⟦", "⟧")
"""What the learnt part of a row stands between."""
_LONGEST_PART = 2000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MARK = re.compile(r"<[|｜][^<>\s]{1,40}[|｜]>|<(?:start|end)_of_\w+>")


def first_row(batches: Batches, tokenizer: Tokenizer) -> str:
    """The first row of the first step as text, its learnt part marked; long parts without their middle."""
    ids_N, is_target_N = batches.rows.take(batches.rows_of_step(1)[:1])
    ids = ids_N.tolist()
    borders = np.flatnonzero(np.diff(is_target_N)) + 1
    # Cut where the text before ends: a part decoded by itself may lack the space that it begins with.
    places = [0, *(len(tokenizer.decode(ids[:border], False)) for border in borders)]
    text = tokenizer.decode(ids, False)
    parts = [text[start:stop] for start, stop in itertools.pairwise([*places, len(text)])]
    learnt = bool(is_target_N[0])
    for number, part in enumerate(parts):
        part = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", _shortened(part))
        parts[number] = f"{LEARNT[0]}{part}{LEARNT[1]}" if learnt == (number % 2 == 0) else part
    return "".join(parts)


def _shortened(text: str) -> str:
    left_out = len(text) - _LONGEST_PART
    half = _LONGEST_PART // 2
    return f"{text[:half]} … {left_out} characters … {text[-half:]}" if left_out > 0 else text


def cautions(run: Run, batches: Batches, tokenizer: Tokenizer, template: ChatTemplate) -> list[str]:
    """What of a run is probably not meant, a line each; nothing of it stops the run."""
    found = []
    longest, reach = batches.packing.longest_row, _reach(run.model)
    if longest > reach:
        found.append(
            f"the longest row has {longest} tokens, the positions of the model reach {reach}; lower "
            "data.row-length or set model.rope-scaling"
        )
    written = template.render([{"role": "user", "content": "?"}], add_generation_prompt=True)
    missing = [
        mark
        for mark in dict.fromkeys(_MARK.findall(written + end_of_turn_text(template)))
        if tokenizer.backend.token_to_id(mark) is None
    ]
    if missing:
        found.append(
            f"chat template {template.name} writes {' and '.join(missing)}, for which tokenizer "
            f"{tokenizer.name} has no token: several ordinary ones stand for it"
        )
    elif run.tokens.end == "end_of_turn":
        found += _unflagged_end(tokenizer, template)
    if run.data.weighting == "original" and (batches.rows.advantage_E != 1).any():
        found.append("rows have an advantage, which data.weighting original does not use; choose another")
    if closes_thinking(template) and OPEN in first_row(batches, tokenizer).partition(LEARNT[0])[2]:
        found.append(
            f"chat template {template.name} writes an empty thought, and the responses think after it; "
            "set data.knobs trace remove, or leave out its option"
        )
    return found


def _unflagged_end(tokenizer: Tokenizer, template: ChatTemplate) -> list[str]:
    tail = end_of_turn_text(template)
    special = set(tokenizer.special_tokens.values())
    if not tail.strip() or special & set(tokenizer.encode(tail)):
        return []
    ending = tokenizer.named_tokens["eos_token"]
    return [
        f"chat template {template.name} ends a turn with {tail.strip()!r}, in which tokenizer "
        f"{tokenizer.name} flags no special token: responses end with {ending} instead"
    ]


def _reach(model: ModelConfig) -> int:
    """Positions that the model was made for, or is stretched to."""
    scaling = model.rope_scaling
    stretched = (scaling.original_positions or model.max_positions) * scaling.factor
    return model.max_positions if scaling.kind == "none" else max(model.max_positions, round(stretched))
