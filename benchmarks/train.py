"""Training on this machine's CPU: our step beside torch + transformers on the same rows and the same model.

    make bench-train
    python benchmarks/train.py --beside PYTHON_WITH_TRANSFORMERS --tunix PYTHON_WITH_TUNIX --kinds equal

A Qwen3 of 3.4 M parameters (4 layers, width 256, 8/4 heads of 32, MLP 768, vocabulary 512), float32, AdamW,
as many threads as there are cores. What is compared:

- `equal`: 16 rows of 512 tokens, all of them targets: the same work for both.
- `spread`: 96 rows whose lengths are spread as the paper's (log-normal, sigma 0.7, median 120, cut at 512).
  Ours packs them into rows of 512; torch takes 16 rows at a time, padded to the longest of all, as the
  original pads.
- `micro`: the same rows, torch padding only to the longest of its own micro-batch of 16, in the given order.
- `sorted`: the same, the rows sorted by length first, so that little is padded.

Both work in processes that live as long as a kind is measured and take a step when told to, one after the
other: ours, theirs, theirs, ours, and so on. Two neighbouring steps are a pair. Printed are the median tokens
per second of rows, padding left out, and of the pairs' ratios the median with the least and the greatest.
All kinds share `--minutes`; on a slow machine there are fewer pairs, and the table says how many. Tunix (its
own trainer, full fine-tuning) takes part in `equal` only: it cannot be told when to take a step, and gives
the best of its own times.
"""

import argparse
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
from alternating import Step, paired, serve, summary

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 256,
    "num_layers": 4,
    "num_heads": 8,
    "num_kv_heads": 4,
    "head_dim": 32,
    "mlp_size": 768,
}
LENGTH, ROWS, SPREAD_ROWS = 512, 16, 96
TUNIX_STEPS = 3
KINDS = ("equal", "spread", "micro", "sorted")


def rows_of(kind: str) -> list[np.ndarray]:
    """Token ids of every row of a step."""
    rng = np.random.default_rng(0)
    if kind == "equal":
        return list(rng.integers(0, SHAPE["vocab_size"], (ROWS, LENGTH)))
    lengths = np.clip(np.exp(rng.normal(np.log(120), 0.7, SPREAD_ROWS)), 8, LENGTH).astype(int)
    return [rng.integers(0, SHAPE["vocab_size"], length) for length in lengths]


def ours(kind: str) -> Step:
    """Takes one of our steps, on the whole batch."""
    import jax

    from jax_sft.config import DataConfig, ModelConfig, ParallelismConfig, Run, Study
    from jax_sft.data.batches import Batches
    from jax_sft.data.rows import TokenisedRows
    from jax_sft.sharding import make_mesh
    from jax_sft.training.placement import place_batch
    from jax_sft.training.start import start_state
    from jax_sft.training.step import abstract_state, compile_step

    rows = rows_of(kind)
    tokens_N = np.concatenate(rows).astype(np.int32)
    offsets = np.cumsum([0, *map(len, rows)])
    is_target_N = np.ones(len(tokens_N), np.bool_)
    is_target_N[offsets[:-1]] = False
    held = TokenisedRows(tokens_N, is_target_N, offsets, np.ones(len(rows), np.float32))
    data = DataConfig(batch_size=len(rows), row_length=LENGTH, rows_per_micro_batch=2)
    model = ModelConfig(**SHAPE, qk_norm=True, tie_embeddings=False, rope_theta=1e6)
    run = Run(model=model, data=data, compute_dtype="float32")
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    batches = Batches(held, data, 0, 1)
    with jax.set_mesh(mesh):
        wanted = abstract_state(run, mesh)
        state = start_state(Study("study", (run,)), run, wanted)
        compiled = compile_step(run, wanted, batches.total_steps)
        batch = place_batch(batches.batch(1), mesh)

    def step() -> None:
        nonlocal state
        with jax.set_mesh(mesh):
            state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))

    return step


def theirs(kind: str) -> Step:
    """Takes a step of torch: padded batches of 16 rows, gradients summed, one AdamW update."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    config = transformers.Qwen3Config(
        vocab_size=SHAPE["vocab_size"],
        hidden_size=SHAPE["hidden_size"],
        num_hidden_layers=SHAPE["num_layers"],
        num_attention_heads=SHAPE["num_heads"],
        num_key_value_heads=SHAPE["num_kv_heads"],
        head_dim=SHAPE["head_dim"],
        intermediate_size=SHAPE["mlp_size"],
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    model = transformers.Qwen3ForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    rows = rows_of(kind)
    if kind == "sorted":
        rows.sort(key=len)
    longest = 0 if kind in ("micro", "sorted") else max(map(len, rows))
    batches = [_padded(rows[first : first + ROWS], longest) for first in range(0, len(rows), ROWS)]

    def step() -> None:
        optimizer.zero_grad()
        for ids, mask, labels in batches:
            model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def tunix() -> float:
    """Seconds of a step of Tunix's trainer, the best of some: the time between batches that it asks for."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from tunix.models.qwen3.model import ModelConfig, Qwen3
    from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig, TrainingInput

    config = ModelConfig(
        num_layers=SHAPE["num_layers"],
        vocab_size=SHAPE["vocab_size"],
        embed_dim=SHAPE["hidden_size"],
        hidden_dim=SHAPE["mlp_size"],
        num_heads=SHAPE["num_heads"],
        head_dim=SHAPE["head_dim"],
        num_kv_heads=SHAPE["num_kv_heads"],
        rope_theta=1_000_000,
        norm_eps=1e-6,
    )
    rows = np.stack(rows_of("equal"))
    asked = []

    def batches() -> Any:
        while True:
            asked.append(time.perf_counter())
            yield TrainingInput(input_tokens=rows, input_mask=np.ones_like(rows, bool))

    def model_input(batch: Any) -> dict[str, Any]:
        positions = jnp.broadcast_to(jnp.arange(LENGTH), rows.shape)
        causal = jnp.broadcast_to(jnp.tril(jnp.ones((LENGTH, LENGTH), bool)), (len(rows), LENGTH, LENGTH))
        tokens, mask = batch.input_tokens, batch.input_mask
        return {"input_tokens": tokens, "input_mask": mask, "positions": positions, "attention_mask": causal}

    training = TrainingConfig(eval_every_n_steps=10**6, max_steps=2 * TUNIX_STEPS + 2)
    trainer = PeftTrainer(Qwen3(config, rngs=nnx.Rngs(0)), optax.adamw(5e-5), training)
    trainer.with_gen_model_input_fn(model_input).train(batches())
    jax.effects_barrier()
    # It asks a few steps ahead; once those are under way, as often as steps end.
    return float(np.diff(asked)[-TUNIX_STEPS:].min())


def _padded(rows: list[np.ndarray], longest: int) -> tuple[Any, Any, Any]:
    """Ids, attention mask (None where nothing is padded, which is faster) and labels."""
    import torch

    longest = longest or max(map(len, rows))
    ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    labels = torch.from_numpy(np.where(mask == 1, ids, -100))
    return torch.from_numpy(ids), None if mask.all() else torch.from_numpy(mask), labels


def main() -> None:
    """Parse, take steps of every kind in pairs, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beside", default="", help="a Python with torch and transformers")
    parser.add_argument("--tunix", default="", help="a Python with google-tunix")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--pairs", type=int, default=7, help="most pairs of a kind")
    parser.add_argument("--minutes", type=float, default=6.0, help="for all kinds together")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        who, kind = flags.worker
        if who == "tunix":
            print(tunix())
        else:
            serve({"ours": ours, "torch": theirs}[who](kind))
        return
    end = time.monotonic() + 60 * flags.minutes
    if flags.beside:
        print(f"tokens/s{'ours':>10}{'torch':>10}   {'ratio of pairs (range)':24}pairs")
        for place, kind in enumerate(flags.kinds):
            share = (end - time.monotonic()) / (len(flags.kinds) - place)
            sides = (sys.executable, "ours"), (flags.beside, "torch")
            pairs, _ = paired(__file__, kind, sides, flags.pairs, share)
            print(summary(kind, sum(map(len, rows_of(kind))), pairs), flush=True)
    if flags.tunix:
        command = [flags.tunix, __file__, "--worker", "tunix", "equal"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = float(done.stdout.split()[-1])
        print(f"Tunix, equal: {ROWS * LENGTH / seconds:,.0f} tokens/s")


if __name__ == "__main__":
    main()
