"""`jax-sft chat` with the tiny study: turns, commands, two snapshots beside each other."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from jax_sft.cli.main import main
from jax_sft.evaluation.chat import Chat
from jax_sft.evaluation.chat_page import Columns, wrapped
from jax_sft.evaluation.speaker import Speaker
from jax_sft.options import ChatOptions
from jax_sft.study.lines import read_completions
from jax_sft.study.records import read_items
from tests.evaluation.tiny import study, unit

OPTIONS = ChatOptions(max_new_tokens=12, context=256)


class Notebook:
    """A page that keeps what is written."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.written: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def answers(self) -> Iterator[None]:
        yield

    def answer(self, name: str) -> Callable[[str], None]:
        self.written.append("")

        def write(text: str) -> None:
            self.written[-1] += text

        return write


@pytest.fixture(scope="module")
def speaker(trained: Path) -> Speaker:
    """A snapshot whose weights are random."""
    return Speaker(trained / "tiny/first", 2, OPTIONS.context)


def talk(speaker: Speaker, *lines: str, options: ChatOptions = OPTIONS) -> Notebook:
    page = Notebook()
    Chat([speaker], options, page).hear(lines)
    return page


def test_what_a_benchmark_asks_is_answered_as_in_the_sweep(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a pipe, at the command line: the answers stand on standard output."""
    items = [item for item in read_items(study(swept), "reasoning") or [] if len(item.messages) == 1][:3]
    stored = {
        line.item: line
        for line in read_completions(unit(swept, "first", 2, "reasoning") / "completions.jsonl")
    }
    questions = [item.messages[0]["content"] for item in items]
    assert len(questions) == 3
    assert not any("\n" in question for question in questions)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n/reset\n".join(questions)))
    folder = str(swept / "tiny/first")
    assert main(["chat", folder, "2", "--max-new-tokens", "12", "--context", "256"]) == 0
    told = capsys.readouterr()
    wanted = [stored[item.id] for item in items]
    notes = {"length": " [cut after 12 tokens]", "stop": ""}
    assert told.out == "".join(f"{line.completion}{notes[line.finish]}\n\n" for line in wanted)
    assert told.err == ""


def test_turns_are_remembered_until_they_are_reset(speaker: Speaker) -> None:
    page = talk(speaker, "What is 1 + 2?", "", "And 3 + 4?")
    roles = [turn["role"] for turn in speaker.turns]
    assert roles == ["user", "assistant"] * 2
    assert page.written[0].startswith(speaker.turns[1]["content"])
    second = talk(speaker, "And 3 + 4?").written[0]
    assert second != page.written[1], "what was said before matters"
    again = talk(
        speaker, "What is 1 + 2?", "/reset", "And 3 + 4?", "/system Be brief.", "And 3 + 4?", "/quit", "x"
    )
    assert again.written[:2] == [page.written[0], second]
    assert again.written[2] != second
    assert [turn["role"] for turn in speaker.turns] == ["system", "user", "assistant"]
    assert len(again.written) == 3


def test_again_draws_anew_and_settings_can_be_changed(speaker: Speaker) -> None:
    lines = ("/set temperature 1.5", "What is 1 + 2?", "/again", "/again", "/set max_new_tokens 3", "/again")
    page = talk(speaker, *lines)
    assert len(set(page.written)) == 4
    assert talk(speaker, *lines).written == page.written, "the seed decides"
    assert page.written[3].endswith("[cut after 3 tokens]")
    greedy = talk(speaker, "What is 1 + 2?", "/again")
    assert greedy.written[0] == greedy.written[1]
    assert [turn["role"] for turn in speaker.turns] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/sing", "no command /sing; /help lists them"),
        ("/again", "/again: nothing was answered yet"),
        ("/set colour 3", "/set: no setting 'colour'; there are temperature, top_p"),
        ("/set top_k 1.5", "/set top_k: '1.5' is no whole number"),
        ("/set top_p 2", "sampling.top_p: 2.0 is not in (0, 1]"),
        ("/set max_new_tokens 0", "--max-new-tokens 0: is not at least 1"),
        ("word " * 300, "tokens and fills the context of 256; /reset it, or start with a larger --context"),
        ("/help", "/again           draw the last answer again"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_conversation_goes_on(
    speaker: Speaker, line: str, message: str
) -> None:
    page = talk(speaker, line, "What is 1 + 2?")
    assert message in page.said[0]
    assert len(page.said) == 1
    assert page.written[-1] == talk(speaker, "What is 1 + 2?").written[0]


def test_two_snapshots_hear_the_same_and_remember_their_own(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], speaker: Speaker
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 1 + 2?\nAnd 3 + 4?\n"))
    first, second = str(trained / "tiny/first"), str(trained / "tiny/second")
    flags = ["--beside", second, "2", "--max-new-tokens", "12", "--context", "256"]
    assert main(["chat", first, "2", *flags]) == 0
    told = capsys.readouterr().out
    assert told.count("── first @ 2\n") == told.count("── second @ 2\n") == 2
    alone = talk(speaker, "What is 1 + 2?", "And 3 + 4?").written
    for answer in alone:
        assert f"── first @ 2\n{answer}" in told


def test_two_answers_in_columns() -> None:
    out = Console(file=io.StringIO(), width=65, soft_wrap=True, markup=False, highlight=False)
    page = Columns(out, Console(file=io.StringIO()))
    with page.answers():
        write = page.answer("base @ 0")
        write("The answer is 7 because 3 and 4 are")
        write(" seven.\n\nDone.")
        write = page.answer("cot @ 10")
        write("Let us ")
        write("think. 3 + 4 = 7, so it is 7 apples")
    rows = out.file.getvalue().splitlines()
    assert rows == [
        "base @ 0                        │  cot @ 10",
        "The answer is 7 because 3 and   │  Let us think. 3 + 4 = 7, so it",
        "4 are seven.                    │   is 7 apples",
        "                                │",
        "Done.                           │",
        "",
    ]
    assert all(len(line) <= 30 for line in wrapped("x" * 100 + "\n" + "ab " * 50, 30))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["FOLDER", "7"], "7"),
        (["FOLDER", "two"], "STEP: 'two' is not a step; write one number such as 10"),
        (["FOLDER", "2", "--beside", "x"], "--beside: write RUN_FOLDER STEP"),
        (["FOLDER", "2", "--beside", "FOLDER", "x"], "--beside: 'x' is not a step"),
        (["FOLDER", "2", "--top-p", "0"], "top_p: 0.0 is not in (0, 1]"),
        (["FOLDER", "2", "--context", "0"], "--context 0: is not at least 1"),
        (["nowhere", "2"], "nowhere/run.json: no such study"),
    ],
)
def test_bad_words_and_flags_are_named(
    trained: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(trained / "tiny/first") if arg == "FOLDER" else arg for arg in args]
    assert main(["chat", *given]) in (1, 2)
    assert message in capsys.readouterr().err
