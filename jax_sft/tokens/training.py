"""Training of the miniature tokenizer: a small byte-level BPE in the shape of the large ones."""

from collections.abc import Iterable

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from jax_sft.errors import UsageError
from jax_sft.responses import thinking
from jax_sft.tokens.templates import CHATML
from jax_sft.tokens.tokenizer import Tokenizer

END_OF_TEXT, START_OF_TURN, END_OF_TURN, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> Tokenizer:
    """Learn a byte-level BPE with numbers in groups of at most two digits, ChatML specials and its template.

    A number of two digits can then be one token, so that comparing two numbers is comparing two tokens.

    Ids: the four special tokens, the 256 bytes, merges in the order learnt, then the think tags,
    which are single tokens but not special, as in Qwen3. The same texts in the same order give the same
    tokenizer.

    Args:
        texts: plain text, without special tokens.
        vocab_size: entries in all; at least 262.

    Raises:
        UsageError: a vocab_size too small for the bytes, or texts too poor to fill it.
    """
    special = [END_OF_TEXT, START_OF_TURN, END_OF_TURN, PAD]
    smallest = len(special) + 256 + len(thinking.TAGS)
    if vocab_size < smallest:
        raise UsageError(f"vocab_size {vocab_size}: at least {smallest} are needed for bytes and specials")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d{1,2}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(thinking.TAGS),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in thinking.TAGS])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "chat_template": CHATML,
    }
    tokenizer = Tokenizer("miniature", backend, settings)
    if tokenizer.vocab_size < vocab_size:
        raise UsageError(f"the texts gave {tokenizer.vocab_size} tokens of {vocab_size}; train on more text")
    return tokenizer
