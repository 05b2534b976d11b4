"""Tokens per second of the generation engine on one fixed workload of very unequal lengths.

    python benchmarks/decode.py                       # 16, 32 and 64 slots
    python benchmarks/decode.py --slots 32 --rounds 5

64 prompts of 64 tokens; 16 to 320 new tokens, spaced evenly in the logarithm and shuffled, 6565 in all; no
stop token; greedy, float32; a Qwen3 of 3.4 M random parameters. Useful tokens are those of the requests
themselves. Prints the best of `--rounds` after one that compiles.
"""

import argparse
import time

import flax.linen as nn
import jax
import numpy as np

from jax_sft.config import EvaluationConfig, ModelConfig, ParallelismConfig
from jax_sft.generation.engine import Engine, Request
from jax_sft.models.decoder import Params, init_params
from jax_sft.sharding import make_mesh

MODEL = ModelConfig(
    vocab_size=512,
    hidden_size=256,
    num_layers=4,
    num_heads=8,
    num_kv_heads=4,
    head_dim=32,
    mlp_size=768,
    rope_theta=1e6,
    qk_norm=True,
    tie_embeddings=False,
)
CONTEXT = 384


def workload() -> list[Request]:
    """The 64 requests, in a fixed shuffled order."""
    rng = np.random.default_rng(0)
    lengths = np.round(np.geomspace(16, 320, 64)).astype(int)
    rng.shuffle(lengths)
    prompts = rng.integers(0, MODEL.vocab_size, (len(lengths), 64))
    return [
        Request(str(i), 0, tuple(map(int, prompt)), int(length))
        for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]


def random_params(engine: Engine) -> Params:
    """Seeded weights as the engine wants them."""
    made, wanted = nn.unbox(init_params(MODEL, jax.random.key(0))), engine.abstract_params()
    return jax.tree.map(lambda value, leaf: jax.device_put(value, leaf.sharding), made, wanted)


def measure(slots: int, chunk: int, prefill_rows: int, rounds: int) -> str:
    """One line: seconds and useful tokens per second of the best round."""
    evaluation = EvaluationConfig(
        slots=slots, context=CONTEXT, chunk=chunk, prefill_rows=prefill_rows, compute_dtype="float32"
    )
    engine = Engine(MODEL, evaluation, (), make_mesh(ParallelismConfig()))
    engine.load(random_params(engine))
    requests = workload()
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        tokens = sum(completion.token_count for _, completion in engine.generate(requests))
        seconds.append(time.perf_counter() - start)
    best = min(seconds[1:])
    return (
        f"{slots:3d} slots, chunk {chunk}, prefill {prefill_rows}: {tokens} tokens in {best:.2f} s, "
        f"{tokens / best:.0f} tokens/s (first round with compilation {seconds[0]:.1f} s)"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--prefill-rows", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for slots in arguments.slots:
        print(measure(slots, arguments.chunk, arguments.prefill_rows, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
