"""What a config.json may say beyond the fields that are read: what says nothing, and what is asked in vain.

transformers writes into config.json how a model was loaded, trained and sampled from, and ignores what it
does not know. Here a field that changes nothing passes; one that may ask for another computation is named.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

_ORIGIN = {
    "_commit_hash",
    "_name_or_path",
    "auto_map",
    "dtype",
    "is_llama_config",
    "model_type",
    "name_or_path",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "transformers_weights",
    "unsloth_fixed",
    "unsloth_version",
}
_HOW_IT_IS_RUN = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_flash_attn_2_enabled",
    "attn_implementation",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "initializer_range",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pretraining_tp",  # products in slices: the same sums
    "return_dict",
    "return_dict_in_generate",
    "tf_legacy_loss",
    "torchscript",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
    "use_return_dict",
}
_TASKS = {"finetuning_task", "prefix", "problem_type", "task_specific_params"}
_TOKENS_AND_SAMPLING = {
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "max_new_tokens",
    "max_sequence_length",
    "min_length",
    "min_p",
    "model_max_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "remove_invalid_values",
    "repetition_penalty",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
}
SAYS_NOTHING = frozenset(_ORIGIN | _HOW_IT_IS_RUN | _TASKS | _TOKENS_AND_SAMPLING)
"""Fields that the forward pass of a language model does not depend on, whatever their value."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "layer_types": ("full_attention",),
    "partial_rotary_factor": (1.0,),
}
"""Fields with the values that ask for what the decoder does; of a list every element."""
_SWITCHED_OFF_BY = {"sliding_window": "use_sliding_window", "max_window_layers": "use_sliding_window"}
"""Fields that say nothing where another is false."""
REMEDY = "; if the model computes the same without it, read on with --init-ignore {}"
"""What to do about a field that is not supported."""


def asks_for_nothing(name: str, value: Any) -> bool:
    """Whether a field that nobody reads may stand there: it is false, null, zero, empty, or neutral."""
    if (neutral := NEUTRAL.get(name)) is None:
        return not value
    return value is None or all(entry in neutral for entry in (value if isinstance(value, list) else [value]))


def unsupported(raw: Mapping[str, Any], harmless: Collection[str]) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it) for each field of a config.json that asks for what nobody computes.

    `harmless` are further fields that say nothing.
    """
    for name, value in raw.items():
        if name in SAYS_NOTHING or name in harmless or asks_for_nothing(name, value):
            continue
        if name in NEUTRAL:
            yield name, f"is {value!r}; only {' or '.join(map(repr, NEUTRAL[name]))} is supported"
        elif raw.get(_SWITCHED_OFF_BY.get(name, ""), True):
            yield name, f"({value!r}) is not supported for {raw.get('model_type')}"
