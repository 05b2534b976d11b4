"""A conversation with one snapshot, or with two that hear the same: what `jax-sft chat` does."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from etils import epath

from jax_sft.config import Sampling, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.chat_page import LEAST_WIDTH, Columns, Page, Plain
from jax_sft.evaluation.speaker import Speaker
from jax_sft.generation.backend import Completion, Request
from jax_sft.options import ChatOptions
from jax_sft.study.check import sampling_problems
from jax_sft.terminal import messages, results

SETTINGS = tuple(field.name for field in fields(Sampling) if field.name != "stop")
WHOLE = ("top_k", "max_new_tokens")
"""Settings that are whole numbers."""
HELP = """\
/again           draw the last answer again, another one where the temperature is above 0
/reset           forget the conversation
/system TEXT     forget it, and begin with this system message; without TEXT with none
/set NAME VALUE  set temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, max_new_tokens
/help            this
/quit            leave; so does the end of the input"""


class Chat:
    """Hears lines and has the speakers answer them."""

    def __init__(self, speakers: Sequence[Speaker], options: ChatOptions, page: Page) -> None:
        """UsageError for options that cannot be."""
        self._speakers, self._options, self._page = speakers, options, page
        _sampling(options)
        self._system, self._sample = options.system, 0
        self._reset()

    def hear(self, lines: Iterable[str]) -> None:
        """Answer line after line, until they end or one says `/quit`.

        What cannot be done is said, and the next line is heard.
        """
        for line in map(str.strip, lines):
            if line == "/quit":
                return
            try:
                if line.startswith("/"):
                    self._obey(*line[1:].partition(" ")[::2])
                elif line:
                    self._ask(line)
            except JaxSftError as error:
                self._page.say(str(error))

    def _obey(self, command: str, rest: str) -> None:
        if command == "again":
            self._again()
        elif command == "reset":
            self._reset()
        elif command == "system":
            self._system = rest.strip()
            self._reset()
        elif command == "set":
            self._set(*rest.strip().partition(" ")[::2])
        elif command == "help":
            self._page.say(HELP)
        else:
            raise UsageError(f"no command /{command}; /help lists them")

    def _reset(self) -> None:
        for speaker in self._speakers:
            speaker.turns = [{"role": "system", "content": self._system}] if self._system else []

    def _again(self) -> None:
        """Ask the last question once more."""
        turns = self._speakers[0].turns
        if not turns or turns[-1]["role"] != "assistant":
            raise UsageError("/again: nothing was answered yet")
        self._sample += 1
        for speaker in self._speakers:
            speaker.turns.pop()
        self._answer()

    def _ask(self, question: str) -> None:
        self._sample = 0
        for speaker in self._speakers:
            speaker.turns.append({"role": "user", "content": question})
        self._answer()

    def _answer(self) -> None:
        """Every speaker's answer; a question that one cannot answer was not asked."""
        before = [speaker.turns[:-1] for speaker in self._speakers]
        turn = sum(message["role"] == "user" for message in self._speakers[0].turns)
        request = Request(
            f"turn {turn}", self._sample, (), self._options.max_new_tokens, _sampling(self._options)
        )
        try:
            with self._page.answers():
                for speaker in self._speakers:
                    write = self._page.answer(speaker.name)
                    completion = speaker.answer(request, self._options.seed, write)
                    write(_note(completion))
        except (JaxSftError, KeyboardInterrupt) as error:
            for speaker, turns in zip(self._speakers, before, strict=True):
                speaker.turns = turns
            if isinstance(error, JaxSftError):
                raise
            self._page.say("stopped; the question was not asked")

    def _set(self, name: str, text: str) -> None:
        if name not in (*SETTINGS, "max_new_tokens"):
            raise UsageError(f"/set: no setting {name!r}; there are {', '.join(SETTINGS)}, max_new_tokens")
        try:
            value: Any = int(text) if name in WHOLE else float(text)
        except ValueError:
            raise UsageError(f"/set {name}: {text!r} is no {'whole ' * (name in WHOLE)}number") from None
        options = replace(self._options, **{name: value})
        options.check()
        _sampling(options)
        self._options = options


def _sampling(options: ChatOptions) -> Sampling:
    """How they say to draw; UsageError when that cannot be."""
    sampling = Sampling(**{name: getattr(options, name) for name in SETTINGS})
    for problem in sampling_problems("sampling", sampling):
        raise UsageError(problem)
    return sampling


def _note(completion: Completion) -> str:
    """What is said of an answer that did not end by itself."""
    count = completion.token_count
    notes = {"length": f" [cut after {count} tokens]", "loop": f" [cut: it repeats itself, {count} tokens]"}
    return notes.get(completion.finish, "")


def chat(snapshots: Sequence[tuple[epath.PathLike, int]], options: ChatOptions) -> None:
    """Talk with one or two snapshots (a run's folder and a step); lines of standard input are the turns."""
    speakers = [Speaker(folder, step, options.context) for folder, step in snapshots]
    out, notes = results(), messages()
    terminal = sys.stdin.isatty()
    wide = out.is_terminal and out.width >= LEAST_WIDTH
    page = Columns(out, notes) if len(speakers) == 2 and wide else Plain(out, notes, len(speakers) > 1)
    if terminal:
        names = " beside ".join(speaker.name for speaker in speakers)
        page.say(f"{names}; /help says what else can be typed")
    Chat(speakers, options, page).hear(_typed("> " if terminal else ""))


def _typed(prompt: str) -> Iterator[str]:
    """Lines of standard input, until it ends."""
    with contextlib.suppress(EOFError):
        while True:
            yield input(prompt)
