"""A snapshot behind a server: which one, how it is asked, and whether it answers as our engine does."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from statistics import median

from rich.table import Table

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import BenchmarkConfig, Run, Study
from jax_sft.errors import UsageError
from jax_sft.evaluation.items import store_items
from jax_sft.evaluation.prompts import Voice, Voices
from jax_sft.generation.backend import Backend, Completion, Request
from jax_sft.generation.client import Client
from jax_sft.generation.endpoint import Endpoint, identify
from jax_sft.generation.engine import Engine
from jax_sft.models.params import on_host
from jax_sft.options import SweepOptions
from jax_sft.sharding import make_generation_mesh
from jax_sft.study.folder import run_folder

PROMPTS, LONGEST = 50, 64
"""Prompts of a comparison, and new tokens for each."""
SHOWN = 8
"""Divergences that the table shows."""


@dataclass(frozen=True)
class Server:
    """A server that has one snapshot."""

    client: Client
    name: str
    """What the records of units call it."""
    requests: int

    @staticmethod
    def of(options: SweepOptions, runs: Sequence[str], steps: Sequence[int] | None) -> "Server | None":
        """The server that the options name, None without one.

        UsageError when it is not clear which snapshot it has, or when it serves another model.
        """
        url = options.endpoint or options.check_backend
        if not url:
            return None
        if len(set(runs)) != 1 or len(set(steps or ())) != 1:
            flag = "--endpoint" if options.endpoint else "--check-backend"
            raise UsageError(f"{flag}: the server has one snapshot; name it by --runs RUN --steps STEP")
        client = Client(url, options.model, options.request_timeout)
        return Server(client, identify(client), options.requests)

    def backend(self, voice: Voice) -> Backend:
        """What draws from it for a run."""
        return Endpoint(self.client, voice.tokenizer, voice.stops, self.requests)


def compare(
    study: Study, run: Run, step: int, benchmarks: Sequence[BenchmarkConfig], server: Server
) -> Table:
    """Greedy completions of our engine and of the server, side by side.

    The prompts are the first of each benchmark in turn, `PROMPTS` in all.
    """
    voice = Voices([(b, store_items(study, b, lambda _: None)) for b in benchmarks]).of(run.tokens)
    context = study.evaluation.context
    prompts = [
        Request(f"{name}/{item}", 0, prompt, min(LONGEST, context - len(prompt)))
        for name, item, prompt in _in_turn(voice)
        if len(prompt) < context
    ]
    engine = Engine(run.model, study.evaluation, voice.stops, make_generation_mesh(study.evaluation.tensor))
    engine.load(load_snapshot(run_folder(study, run.name), step, on_host(engine.abstract_params())))
    ours, theirs = (
        {request.id: completion for request, completion in backend.generate(prompts)}
        for backend in (engine, server.backend(voice))
    )
    title = f"{run.name} @ {step}: our engine and {server.client.model} ({server.name}), greedy"
    return agreement_table(title, ours, theirs, voice)


def _in_turn(voice: Voice) -> list[tuple[str, str, tuple[int, ...]]]:
    """The first prompts of a comparison: benchmark, item, tokens."""
    lists = [
        [(name, item, prompt) for item, prompt in prompts.items()] for name, prompts in voice.prompts.items()
    ]
    return list(islice((entry for entry in chain(*zip_longest(*lists)) if entry), PROMPTS))


def first_difference(ours: Completion, theirs: Completion) -> int | None:
    """Index of the first new token that differs; None when all are the same and both end alike."""
    pairs = zip(ours.tokens, theirs.tokens, strict=False)
    shorter = min(len(ours.tokens), len(theirs.tokens))
    place = next((index for index, (a, b) in enumerate(pairs) if a != b), shorter)
    same = place == len(ours.tokens) == len(theirs.tokens) and ours.finish == theirs.finish
    return None if same else place


def agreement_table(
    title: str, ours: dict[str, Completion], theirs: dict[str, Completion], voice: Voice
) -> Table:
    """How many completions are the same, where the others part, and with which tokens."""
    places = {name: first_difference(ours[name], theirs[name]) for name in ours}
    apart = {name: place for name, place in places.items() if place is not None}
    tokens = sum(len(completion.tokens) for completion in ours.values())
    agreed = sum(len(ours[name].tokens) if place is None else place for name, place in places.items())
    where = f"; they part at token {min(apart.values())} to {max(apart.values())}" if apart else ""
    middle = f", the median {median(apart.values()):g}" if apart else ""
    table = Table("prompt", "at token", "ours", "theirs", title=title)
    table.caption = (
        f"{len(ours) - len(apart)} of {len(ours)} completions the same, {agreed} of {tokens} tokens up to "
        f"the first difference{where}{middle}"
    )
    for name, place in sorted(apart.items(), key=lambda pair: pair[1])[:SHOWN]:
        after = (
            voice.tokenizer.decode(list(c[name].tokens[place : place + 4]), False) for c in (ours, theirs)
        )
        table.add_row(name, str(place), *(repr(text) if text else "(the end)" for text in after))
    return table
