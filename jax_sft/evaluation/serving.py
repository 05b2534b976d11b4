"""A snapshot behind a server: which one, how it is asked, and whether it answers as our engine does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from statistics import median

import jax
from rich.table import Table

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import BenchmarkConfig, Run, Study
from jax_sft.errors import UsageError
from jax_sft.evaluation.items import store_items
from jax_sft.evaluation.prompts import Voice, Voices, check_voice
from jax_sft.generation.backend import Backend, Completion, Given, Request, Scored
from jax_sft.generation.client import Client
from jax_sft.generation.endpoint import Endpoint, identify
from jax_sft.generation.engine import Engine
from jax_sft.generation.likelihood import Likelihoods
from jax_sft.models.params import on_host
from jax_sft.options import SweepOptions
from jax_sft.sharding import make_generation_mesh, shardings_of
from jax_sft.study.folder import run_folder
from jax_sft.study.records import RunRecord

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
    study: Study,
    run: Run,
    step: int,
    benchmarks: Sequence[BenchmarkConfig],
    server: Server,
    options: SweepOptions,
) -> Table:
    """Greedy completions of our engine and of the server, side by side.

    The prompts are the first of each benchmark in turn, `options.check_prompts` in all. Where two completions
    part, our model says how much likelier it finds its own token.
    """
    voice = Voices([(b, store_items(study, b, lambda _: None)) for b in benchmarks]).of(run.tokens)
    check_voice(study, run, RunRecord.read(run_folder(study, run.name)), voice)
    evaluation, mesh = study.evaluation, make_generation_mesh(study.evaluation.tensor)
    prompts = [
        Request(f"{name}/{item}", 0, prompt, min(options.check_tokens, evaluation.context - len(prompt)))
        for name, item, prompt in islice(_in_turn(voice), options.check_prompts)
        if len(prompt) < evaluation.context
    ]
    if not prompts:
        raise UsageError(
            "--check-backend: the benchmarks have no prompt shorter than evaluation.context; name others by "
            "--benchmarks"
        )
    engine = Engine(run.model, evaluation, voice.stops, mesh)
    params = load_snapshot(run_folder(study, run.name), step, on_host(engine.abstract_params()))
    engine.load(params)
    ours, theirs = (
        {request.id: completion for request, completion in backend.generate(prompts)}
        for backend in (engine, server.backend(voice))
    )
    engine.unload()
    pairs = {r.id: Pair.of(r.prompt, ours[r.id], theirs[r.id], voice) for r in prompts}
    title = f"{run.name} @ {step}: our engine and {server.client.model} ({server.name}), greedy"
    apart = [pair.question(name) for name, pair in pairs.items() if pair.nexts]
    if not apart:
        return agreement_table(title, pairs, {})
    scorer = Likelihoods(run.model, evaluation, mesh)
    scorer.load(jax.device_put(params, shardings_of(scorer.abstract_params())))
    gaps = {given.id: pairs[given.id].gap(scored) for given, scored in scorer.score(apart)}
    return agreement_table(title, pairs, gaps)


def _in_turn(voice: Voice) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Prompts of a comparison: benchmark, item, tokens."""
    lists = [
        [(name, item, prompt) for item, prompt in prompts.items()] for name, prompts in voice.prompts.items()
    ]
    return (entry for entry in chain(*zip_longest(*lists)) if entry)


def first_difference(ours: Completion, theirs: Completion) -> int | None:
    """Index of the first new token that differs; None when all are the same and both end alike."""
    pairs = zip(ours.tokens, theirs.tokens, strict=False)
    shorter = min(len(ours.tokens), len(theirs.tokens))
    place = next((index for index, (a, b) in enumerate(pairs) if a != b), shorter)
    same = place == len(ours.tokens) == len(theirs.tokens) and ours.finish == theirs.finish
    return None if same else place


@dataclass(frozen=True)
class Pair:
    """What both made of a prompt."""

    prompt: tuple[int, ...]
    ours: Completion
    theirs: Completion
    place: int | None
    """The first new token that differs; None where nothing does."""
    nexts: tuple[tuple[int, ...], tuple[int, ...]] | tuple[()]
    """Tokens with which each may have gone on there: several where it stopped, and several stop it."""
    words: tuple[str, ...]
    """What each wrote from there on, in short."""

    @staticmethod
    def of(prompt: tuple[int, ...], ours: Completion, theirs: Completion, voice: Voice) -> "Pair":
        """Compares them. A server that gives text alone may have had the same text in other tokens."""
        both, decode = (ours, theirs), voice.tokenizer.decode
        place = first_difference(ours, theirs)
        if decode(list(ours.tokens)) == decode(list(theirs.tokens)) and ours.finish == theirs.finish:
            place = None
        if place is None:
            return Pair(prompt, ours, theirs, None, (), ())
        first, second = (
            c.tokens[place : place + 1] or (voice.stops if c.finish == "stop" else ()) for c in both
        )
        words = tuple(decode(list(c.tokens[place : place + 4]), False) for c in both)
        return Pair(prompt, ours, theirs, place, (first, second) if first and second else (), words)

    def question(self, name: str) -> Given:
        """Asks how likely our model finds what each went on with."""
        continuations = tuple((token,) for tokens in self.nexts for token in tokens)
        return Given(name, self.prompt + self.ours.tokens[: self.place], continuations)

    def gap(self, scored: Sequence[Scored]) -> float:
        """How much likelier our model finds our token than theirs, in nats: the gap of their logits."""
        logprobs, count = [one.logprobs[0] for one in scored], len(self.nexts[0]) if self.nexts else 0
        return max(logprobs[:count]) - max(logprobs[count:])


def agreement_table(title: str, pairs: Mapping[str, Pair], gaps: Mapping[str, float]) -> Table:
    """How many completions are the same; where the others part, with which tokens and by what gap."""
    apart = {name: pair.place for name, pair in pairs.items() if pair.place is not None}
    tokens = sum(len(pair.ours.tokens) for pair in pairs.values())
    agreed = sum(len(p.ours.tokens) if p.place is None else p.place for p in pairs.values())
    where = f"; they part at token {min(apart.values())} to {max(apart.values())}" if apart else ""
    middle = f", the median {median(apart.values()):g}" if apart else ""
    wide = f", by gaps up to {max(map(abs, gaps.values())):.3g} nats" if gaps else ""
    table = Table("prompt", "at token", "ours", "theirs", "gap, nats", title=title)
    table.caption = (
        f"{len(pairs) - len(apart)} of {len(pairs)} completions the same, {agreed} of {tokens} tokens up to "
        f"the first difference{where}{middle}{wide}"
    )
    for name, place in sorted(apart.items(), key=lambda pair: pair[1])[:SHOWN]:
        words = (repr(text) if text else "(the end)" for text in pairs[name].words)
        table.add_row(name, str(place), *words, f"{gaps[name]:.2g}" if name in gaps else "")
    return table
