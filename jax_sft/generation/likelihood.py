"""How likely given text is: log-probabilities of continuations after their prompts, in packed rows.

The continuations of one prompt are branches after it (`models.branches`): the prompt is read once, whatever
it is asked about. The weights are an argument, so that a sweep has one program for each length of row, with
branches and without.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Given, Scored
from jax_sft.generation.texts import Call, Text, plan_calls
from jax_sft.models import Params
from jax_sft.models.attention import Segments
from jax_sft.models.branches import Branches
from jax_sft.models.decoder import Decoder, head_kernel
from jax_sft.models.likelihood import target_logprobs
from jax_sft.models.params import abstract_params
from jax_sft.packed import Rows
from jax_sft.sharding import BATCH_AXES, GENERATION_RULES, batch_sharding, shardings_of


class _Piece(NamedTuple):
    """A text that is read, and which continuations of which question it holds, in order."""

    text: Text
    question: int
    continuations: tuple[int, ...]


class Likelihoods:
    """Compiled scoring of given text for one model shape, on any mesh of data axes and `tensor`."""

    def __init__(self, model: ModelConfig, evaluation: EvaluationConfig, mesh: Mesh) -> None:
        """Nothing is compiled yet. UsageError for a model that gives scores and not words."""
        if model.head != "vocabulary":
            raise UsageError("likelihoods are of a model with a vocabulary; this one gives one score")
        self.model, self.mesh = model, mesh
        self.compilations = 0
        """Programs compiled: for each length of row that came up, with branches and without."""
        self.share_prompts = model.rope_scaling.kind != "dynamic"
        """Whether continuations of a prompt are its branches. With dynamic NTK the angles of a prompt depend
        on the length of what follows: each continuation is then read with a prompt of its own."""
        self._tokens = evaluation.score_tokens
        self._dtype = jnp.dtype(evaluation.compute_dtype)
        self._params: Params | None = None
        self._rows = batch_sharding(mesh)
        in_params = shardings_of(self.abstract_params())
        self._program = jax.jit(
            self._score, in_shardings=(in_params, self._rows, self._rows), out_shardings=self._rows
        )

    def abstract_params(self) -> Params:
        """Shapes, types (the compute type) and shardings in which it takes weights."""
        return abstract_params(self.model, self._dtype, self.mesh, GENERATION_RULES)

    def lower(self, rows: int, length: int, branched: bool) -> jax.stages.Lowered:
        """The program for so many packed rows of a length, traced and lowered for the mesh."""
        x_RT = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=self._rows)
        with jax.set_mesh(self.mesh):
            packed = Rows(x_RT, x_RT, x_RT, x_RT, None)
            return self._program.lower(self.abstract_params(), packed, x_RT if branched else None)

    def load(self, params: Params) -> None:
        """Score with these weights from now on; they lie as `abstract_params` says."""
        self._params = params

    def unload(self) -> None:
        """Let go of the weights."""
        self._params = None

    def score(self, given: Iterable[Given]) -> Iterator[tuple[Given, tuple[Scored, ...]]]:
        """Each question with what the model makes of its continuations, in the order in which they are read.

        A log-probability depends on the weights, the prompt and the continuation alone. UsageError, before
        anything is read, for a question without a prompt or with an empty continuation, for tokens that the
        model does not know, and when no weights were loaded.
        """
        if self._params is None:
            raise UsageError("there are no weights to score with: load some first")
        asked = list(given)
        for question in asked:
            check_given(question, self.model.vocab_size)
        return self._read(self._params, asked)

    def _read(self, params: Params, asked: list[Given]) -> Iterator[tuple[Given, tuple[Scored, ...]]]:
        pieces = [
            piece
            for number, question in enumerate(asked)
            for piece in _pieces(question, number, self.share_prompts)
        ]
        found: dict[int, dict[int, Scored]] = {}
        for piece, logprobs, likeliest in self._read_pieces(params, pieces):
            scored = found.setdefault(piece.question, {})
            question, at = asked[piece.question], np.flatnonzero(piece.text.targets >= 0)
            for continuation in piece.continuations:
                count = len(question.continuations[continuation])
                here, at = at[:count], at[count:]
                scored[continuation] = Scored(tuple(logprobs[here].tolist()), bool(likeliest[here].all()))
            if len(scored) == len(question.continuations):
                del found[piece.question]
                yield question, tuple(scored[n] for n in range(len(scored)))

    def _read_pieces(
        self, params: Params, pieces: list[_Piece]
    ) -> Iterator[tuple[_Piece, np.ndarray, np.ndarray]]:
        """Each piece with its tokens' log-probabilities and whether they are the likeliest."""
        ahead: tuple[list[_Piece], Call, tuple[jax.Array, jax.Array]] | None = None
        for some, call in self._calls(pieces):
            results = self._run(params, [piece.text for piece in some], call)
            if ahead is not None:  # looked at while the device works on the next
                yield from _results(*ahead)
            ahead = some, call, results
        if ahead is not None:
            yield from _results(*ahead)

    def _calls(self, pieces: list[_Piece]) -> Iterator[tuple[list[_Piece], Call]]:
        """Pieces with branches in calls of their own: rows without are attended to in one go."""
        ways = self.mesh.shape[BATCH_AXES[0]] * self.mesh.shape[BATCH_AXES[1]]
        for branched in (False, True):
            some = [piece for piece in pieces if bool(piece.text.branches.any()) == branched]
            for call in plan_calls([len(piece.text.tokens) for piece in some], self._tokens, ways):
                yield some, call

    def _run(self, params: Params, texts: list[Text], call: Call) -> tuple[jax.Array, jax.Array]:
        laid, segments_RT = call.fill(texts)
        rows = Rows(laid.tokens, laid.targets, laid.positions, segments_RT, None)
        branches_RT = laid.branches if laid.branches.any() else None
        with jax.set_mesh(self.mesh):
            return self._program(params, *jax.device_put((rows, branches_RT), self._rows))

    def _score(
        self, params: Params, rows: Rows, branches_RT: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        self.compilations += 1
        segments_RT = rows.segments
        context = Segments(segments_RT) if branches_RT is None else Branches(segments_RT, branches_RT)
        hidden_RTD, _ = Decoder(self.model, self._dtype).apply({"params": params}, rows, context)
        return target_logprobs(hidden_RTD, head_kernel(params, self.model), rows.targets)


def _results(
    pieces: Sequence[_Piece], call: Call, results: tuple[jax.Array, jax.Array]
) -> Iterator[tuple[_Piece, np.ndarray, np.ndarray]]:
    """What a call found of its pieces; waits for the device."""
    logprobs_RT, likeliest_RT = jax.device_get(results)
    for number, row, start in call.places:
        piece = pieces[number]
        span = slice(start, start + len(piece.text.tokens))
        yield piece, logprobs_RT[row, span], likeliest_RT[row, span]


def _pieces(question: Given, number: int, share: bool) -> Iterator[_Piece]:
    """What is read of a question: all of it at once, or each continuation with a prompt of its own."""
    count = len(question.continuations)
    if share and count > 1:
        yield _Piece(_branched(question), number, tuple(range(count)))
        return
    for index, continuation in enumerate(question.continuations):
        yield _Piece(Text.followed(question.prompt, continuation), number, (index,))


def _branched(question: Given) -> Text:
    """The prompt less its last token, then for each continuation that token and all but the last of its own.

    So every token has one target: the first of each continuation is that of the prompt's last token.
    """
    shared = np.asarray(question.prompt[:-1], np.int32)
    tokens, positions, branches, targets = [shared], [np.arange(len(shared))], [shared * 0], [shared * 0 - 1]
    for branch, continuation in enumerate(question.continuations, start=1):
        tokens.append(np.asarray((question.prompt[-1], *continuation[:-1]), np.int32))
        positions.append(len(shared) + np.arange(len(continuation)))
        branches.append(np.full(len(continuation), branch))
        targets.append(np.asarray(continuation))
    return Text(*(np.concatenate(x).astype(np.int32) for x in (tokens, positions, branches, targets)))


def check_given(question: Given, vocab_size: int) -> None:
    """UsageError for a question that cannot be answered: nothing asked, or unknown tokens."""
    if not question.prompt:
        raise UsageError(f"item {question.id}: its prompt is empty; a likelihood needs a token to follow")
    if not question.continuations or not all(question.continuations):
        raise UsageError(f"item {question.id}: a continuation whose likelihood is asked is empty")
    if (highest := max(map(max, (question.prompt, *question.continuations)))) >= vocab_size:
        raise UsageError(
            f"item {question.id}: holds token {highest}, the model knows those below {vocab_size}: the "
            "tokenizer is not the model's"
        )
