"""Generation on this machine's CPU: our engine beside transformers on the same requests and weights.

    make bench-generate
    python benchmarks/generate.py --beside PYTHON_WITH_TRANSFORMERS --kinds equal-16 spread-64
    python benchmarks/generate.py                       # ours alone: rates, bandwidth, occupancy

Greedy, float32, as many threads as there are cores. A Qwen3 of 3.4 M parameters (4 layers, width 256, 8/4
heads of 32, MLP 768, vocabulary 512) with seeded weights, which both are given:

- `equal-16`, `equal-64`: 64 prompts of 64 tokens, 128 new tokens each; so many slots here, and batches there.
- `spread-16`, `-24`, `-64`: 64 prompts of 64 tokens, 16 to 320 new ones, spaced evenly in the logarithm and
  shuffled, 6565 in all; so many slots here. There the best of batches of 16, 32 and 64 requests sorted
  by length, each as long as its longest, and of continuous batching; which that is, is printed.
- `smollm2`: 32 prompts of 64 tokens, 16 to 256 new ones, by SmolLM2-135M; 16 slots; batches of 8, 16 or 32.

Both work in processes that take turns, as in benchmarks/train.py. Tokens are those asked for. With ours goes
what it read: weights and pages a second, and how much of the pages was alive.
"""

import argparse
import os
import sys
import time
from typing import Any

import numpy as np
from alternating import Step, paired, serve, summary
from meter import Meter

KINDS = ("equal-16", "equal-64", "spread-16", "spread-24", "spread-64", "smollm2")
PROMPT, EQUAL, CONTEXT = 64, 128, 384
SHAPE = {
    "vocab_size": 512,
    "hidden_size": 256,
    "num_layers": 4,
    "num_heads": 8,
    "num_kv_heads": 4,
    "head_dim": 32,
    "mlp_size": 768,
}


def workload(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Prompts [R, 64] and how many new tokens each asks for [R], in a fixed order."""
    rng = np.random.default_rng(0)
    count = 32 if kind == "smollm2" else 64
    if kind.startswith("equal"):
        lengths = np.full(count, EQUAL)
    else:
        lengths = np.round(np.geomspace(16, 256 if kind == "smollm2" else 320, count)).astype(int)
        rng.shuffle(lengths)
    return rng.integers(0, SHAPE["vocab_size"], (count, PROMPT)), lengths


def slots_of(kind: str) -> int:
    """Of our engine."""
    return 16 if kind == "smollm2" else int(kind.split("-")[1])


def weights(kind: str) -> tuple[Any, Any]:
    """The model's configuration and its parameters, numpy float32."""
    if kind == "smollm2":
        from jax_sft.models.weights.read import load_pretrained

        return load_pretrained("smollm2")
    import flax.linen as nn
    import jax

    from jax_sft.config import ModelConfig
    from jax_sft.models.decoder import init_params

    config = ModelConfig(**SHAPE, qk_norm=True, tie_embeddings=False, rope_theta=1e6)
    shapes = nn.unbox(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))
    rng = np.random.default_rng(0)
    made = {name: rng.standard_normal(leaf.shape).astype(np.float32) for name, leaf in _leaves(shapes)}
    return config, jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            np.ones(leaf.shape, np.float32)
            if path[-1].key == "scale"
            else made[jax.tree_util.keystr(path)] * leaf.shape[-2] ** -0.5
        ),
        shapes,
    )


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    import jax

    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def engine_for(kind: str) -> tuple[Any, list[Any]]:
    """Our engine with its weights, and the requests."""
    import jax

    from jax_sft.config import EvaluationConfig
    from jax_sft.generation.backend import Request
    from jax_sft.generation.engine import Engine
    from jax_sft.sharding import make_generation_mesh

    config, params = weights(kind)
    prompts, lengths = workload(kind)
    evaluation = EvaluationConfig(slots=slots_of(kind), context=CONTEXT, chunk=16, compute_dtype="float32")
    engine = Engine(config, evaluation, (), make_generation_mesh(1, jax.devices()[:1]))
    engine.load(
        jax.tree.map(lambda x, leaf: jax.device_put(x, leaf.sharding), params, engine.abstract_params())
    )
    requests = [
        Request(str(n), 0, tuple(map(int, prompt)), int(length))
        for n, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]
    return engine, requests


def ours(kind: str) -> Step:
    """Answers all requests."""
    engine, requests = engine_for(kind)

    def step() -> None:
        tokens = sum(completion.token_count for _, completion in engine.generate(requests))
        assert tokens == sum(request.max_new_tokens for request in requests)

    return step


def alone(kind: str) -> str:
    """A line on our engine: rate, bandwidth, what of it was alive, how busy its slots were."""
    engine, requests = engine_for(kind)
    list(engine.generate(requests))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        list(engine.generate(requests))
        seconds.append(time.perf_counter() - start)
    occupancy = engine.schedule.made / engine.schedule.room
    meter = Meter(engine)
    list(engine.generate(requests))
    tokens, best = sum(request.max_new_tokens for request in requests), min(seconds)
    read = meter.weights + meter.read
    return (
        f"{kind:10}{tokens / best:10,.0f} tokens/s; reads {read / best / 1e9:.1f} GB/s, "
        f"{meter.weights / read:.0%} of it weights; of the pages read "
        f"{meter.alive / meter.read:.0%} alive; {engine.shape.slots} slots, {occupancy:.0%} busy"
    )


def their_model(kind: str) -> Any:
    """The same weights in transformers' model."""
    import torch
    import transformers

    from jax_sft.models.families import family_of
    from jax_sft.models.weights.write import Tensors

    config, params = weights(kind)
    raw = family_of(config).write_config(config)
    theirs = transformers.AutoConfig.for_model(**raw)
    model = transformers.AutoModelForCausalLM.from_config(theirs, dtype=torch.float32)
    tensors = Tensors(family_of(config).table(config), config, params)
    state = {name: torch.from_numpy(np.array(tensors.read(name), np.float32)) for name in tensors.shapes}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    model.generation_config.eos_token_id = None
    return model.eval()


def theirs(kind: str) -> Step:
    """Answers all requests the way that is fastest there."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    model, (prompts, lengths) = their_model(kind), workload(kind)
    order = np.argsort(lengths, kind="stable")

    def in_batches(size: int) -> None:
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            ids = torch.from_numpy(prompts[rows])
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=int(lengths[rows].max()),
                do_sample=False,
                pad_token_id=0,
            )

    if kind.startswith("equal"):
        return torch.no_grad()(lambda: in_batches(slots_of(kind)))
    sizes = (8, 16, 32) if kind == "smollm2" else (16, 32, 64)
    ways: dict[str, Step] = {f"batches of {n}": (lambda n=n: in_batches(n)) for n in sizes}
    paged = their_model(kind)  # its attention is changed for good
    ways["continuous batching"] = lambda: _continuous(paged, prompts, lengths)
    best, least = "", float("inf")
    for name, way in ways.items():
        try:
            for _ in range(2):
                start = time.perf_counter()
                with torch.no_grad():
                    way()
                seconds = time.perf_counter() - start
        except (RuntimeError, TypeError, ValueError, ImportError, AttributeError, AssertionError) as error:
            print(f"note transformers, {name}: {type(error).__name__} {error}"[:160], flush=True)
            continue
        print(f"note transformers, {name}: {lengths.sum() / seconds:,.0f} tokens/s", flush=True)
        if seconds < least:
            best, least = name, seconds
    return torch.no_grad()(ways[best])


def _continuous(model: Any, prompts: np.ndarray, lengths: np.ndarray) -> None:
    """transformers' own continuous batching, each request to its own length."""
    from transformers import GenerationConfig

    model.set_attn_implementation("sdpa")
    longest = int(lengths.max())
    settings = GenerationConfig(do_sample=False, max_new_tokens=longest, pad_token_id=0, eos_token_id=-1)
    with model.continuous_batching_context_manager(generation_config=settings, timeout=10) as manager:
        for prompt, length in zip(prompts.tolist(), lengths.tolist(), strict=True):
            manager.add_request(prompt, max_new_tokens=length)
        left = len(lengths)
        while left:
            result = manager.get_result(timeout=60)
            if result is None:
                raise RuntimeError("no answer in a minute")
            left -= bool(result.is_finished())


def main() -> None:
    """Parse, take steps of every kind in pairs, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beside", default="", help="a Python with torch and transformers")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--pairs", type=int, default=5, help="most pairs of a kind")
    parser.add_argument("--minutes", type=float, default=12.0, help="for all kinds together")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        who, kind = flags.worker
        serve({"ours": ours, "theirs": theirs}[who](kind))
        return
    end = time.monotonic() + 60 * flags.minutes
    if flags.beside:
        sides = ((sys.executable, "ours"), (flags.beside, "theirs"))
        print(f"tokens/s  {'ours':>10}{'theirs':>10}   {'ratio of pairs (range)':24}pairs")
        for place, kind in enumerate(flags.kinds):
            share = (end - time.monotonic()) / (len(flags.kinds) - place)
            pairs, notes = paired(__file__, kind, sides, flags.pairs, share)
            print(summary(kind, int(workload(kind)[1].sum()), pairs), *notes, sep="\n    ", flush=True)
    for kind in flags.kinds:
        print(alone(kind), flush=True)


if __name__ == "__main__":
    main()
