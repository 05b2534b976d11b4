"""What weights and pages in 8 bits change: logits on texts, and greedy completions. SmolLM2, on any device.

    python benchmarks/eight_bits.py --model smollm2 --tokens 32

Texts are read as one prompt, and its logits compared at every position: mean KL divergence, largest change of
the likeliest token's log-probability, share of positions with the same likeliest token. Then each text is
gone on with greedily: share of completions that are the same to the last token, and of tokens before the
first that differs. Compute is float32. SmolLM2's weights come from a file of 4 bits, which 8 bits hold well.
"""

import argparse
from dataclasses import replace

import jax

from jax_sft.config import EvaluationConfig, TokensConfig
from jax_sft.generation.backend import Request
from jax_sft.generation.engine import Engine
from jax_sft.generation.precision import agreement, difference, text_logits
from jax_sft.models.weights.read import load_pretrained, pretrained_config
from jax_sft.sharding import make_generation_mesh
from jax_sft.tokens.loading import load_tokenizer

TEXTS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many "
    "clips did Natalia sell altogether in April and May? Let us think step by step.",
    "The capital of France is Paris. The capital of Japan is Tokyo. The capital of Italy is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Once upon a time there was a girl who lived at the edge of a great forest. Every morning she",
)
BASE = EvaluationConfig(slots=4, context=128, chunk=16, compute_dtype="float32")
WAYS = {
    "weights int8": replace(BASE, weight_dtype="int8"),
    "pages int8": replace(BASE, kv_dtype="int8"),
    "both int8": replace(BASE, kv_dtype="int8", weight_dtype="int8"),
    "pages float8_e4m3fn": replace(BASE, kv_dtype="float8_e4m3fn"),
    "pages float8_e5m2": replace(BASE, kv_dtype="float8_e5m2"),
}


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=32, help="of a completion; 0 compares logits alone")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    flags = parser.parse_args()
    config, mesh = pretrained_config(flags.model), make_generation_mesh(1, jax.devices()[:1])
    tokenizer = load_tokenizer(TokensConfig(tokenizer=flags.model))
    texts = [tuple(tokenizer.encode(text)) for text in TEXTS]
    params = load_pretrained(flags.model, Engine(config, BASE, (), mesh).abstract_params())[1]
    requests = [Request(str(n), 0, text, flags.tokens) for n, text in enumerate(texts)]

    def completions(evaluation: EvaluationConfig) -> dict[str, tuple[int, ...]]:
        engine = Engine(config, evaluation, (), mesh)
        engine.load(params)
        return {request.id: made.tokens for request, made in engine.generate(requests)}

    prompt = [token for text in texts for token in text]
    whole = text_logits(params, config, prompt, BASE)
    greedy = completions(BASE) if flags.tokens else {}
    print("| 8 bits | KL, nats | largest difference | same likeliest | same completions | same tokens |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way in flags.ways:
        off = difference(whole, text_logits(params, config, prompt, WAYS[way]))
        told = f"| {way} | {off.nats:.5f} | {off.largest:.3f} | {off.greedy:.1%} |"
        if flags.tokens:
            alike = agreement(greedy, completions(WAYS[way]))
            told += f" {alike.completions:.0%} | {alike.tokens:.0%} |"
        print(told, flush=True)


if __name__ == "__main__":
    main()
