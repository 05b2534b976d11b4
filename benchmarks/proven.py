"""How often the threshold of top-p lies among the blocks with the largest logits, on real texts.

    python benchmarks/proven.py DATA/reasoning_sft/gsm8k_train.jsonl --model smollm2 --top-p 0.95

Of the rows of a json-lines file all texts are joined, and read as one prompt of `--tokens`. At each position
the next token's threshold is looked for as `generation.sampling` does; printed is the share of positions
where all tokens had to be looked at, by temperature. So many of a step's slots take the longer way.
"""

import argparse

import jax
import jax.numpy as jnp

from jax_sft.config import EvaluationConfig, Sampling, TokensConfig
from jax_sft.files import read_jsonl
from jax_sft.generation.engine import Engine
from jax_sft.generation.precision import text_logits
from jax_sft.generation.sampling import among_candidates, in_blocks, slot_sampling
from jax_sft.models.weights.read import load_pretrained, pretrained_config
from jax_sft.sharding import make_generation_mesh
from jax_sft.tokens.loading import load_tokenizer

ROWS = 16
"""Of a file."""


def unproven(logits_TV: jax.Array, temperature: float, top_p: float) -> float:
    """Share of the positions whose threshold is not proven by the blocks with the largest logits."""
    T = len(logits_TV)
    settings = slot_sampling([Sampling(temperature, top_p=top_p)] * T, range(T), T)
    values_TGN = in_blocks(logits_TV / temperature)
    most_T = values_TGN.max(axis=(1, 2))
    total_T = jnp.exp(values_TGN - most_T[:, None, None]).sum(axis=(1, 2))
    return 1.0 - float(among_candidates(values_TGN, total_T, settings)[1].mean())


def main() -> None:
    """Print a line for each file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--temperatures", nargs="+", type=float, default=[0.6, 0.8, 1.0])
    flags = parser.parse_args()
    evaluation = EvaluationConfig(slots=1, context=flags.tokens, chunk=16, compute_dtype="float32")
    config, mesh = pretrained_config(flags.model), make_generation_mesh(1, jax.devices()[:1])
    tokenizer = load_tokenizer(TokensConfig(tokenizer=flags.model))
    params = load_pretrained(flags.model, Engine(config, evaluation, (), mesh).abstract_params())[1]
    print(f"| file | {' | '.join(f'temperature {each}' for each in flags.temperatures)} |")
    print(f"| --- |{' --- |' * len(flags.temperatures)}")
    for file in flags.files:
        rows = [row for row, _ in zip(read_jsonl(file), range(ROWS), strict=False)]
        text = "\n\n".join(value for row in rows for value in row.values() if isinstance(value, str))
        tokens = tuple(tokenizer.encode(text))[: flags.tokens]
        logits_TV = jnp.asarray(text_logits(params, config, tokens, evaluation))
        shares = [unproven(logits_TV, each, flags.top_p) for each in flags.temperatures]
        print(f"| {file} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
