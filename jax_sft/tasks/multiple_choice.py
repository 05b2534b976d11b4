"""MMLU, MMLU-Pro, GPQA and TruthfulQA's single right answer as questions with lettered options."""

import csv
import io
import random
import zipfile
from collections.abc import Sequence
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.errors import UsageError
from jax_sft.responses.answers import Answer
from jax_sft.responses.letters import WORDS, choice
from jax_sft.responses.thinking import visible
from jax_sft.responses.words import quoted
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.choices import CommonsenseQA
from jax_sft.tasks.protocols import asked, salted_seeds
from jax_sft.tasks.tables import table, text
from jax_sft.tasks.task import column, exact, register, source_file, user

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
INSTRUCTION = "Please reason step by step, and put the letter of your choice within \\boxed{}."


def lettered(question: str, texts: Sequence[str], after: str = "") -> str:
    """The question, a line for each option ("A. …"), and a last line."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, texts, strict=False)]
    return "\n".join([question.strip(), *lines, after]).strip()


class Lettered(CommonsenseQA):
    """Judged like CommonsenseQA: the letter counts, or the words of an option in its place.

    Option `instruction`: the line after the options.
    """

    defaults: ClassVar = {"instruction": INSTRUCTION}

    def item(self, name: str, prompt: str, texts: Sequence[str], answer: str, where: str) -> Item:
        """An item with these options, of which the letter `answer` is right; UsageError if it is none."""
        letters = LETTERS[: len(texts)]
        if len(answer) != 1 or answer not in letters:
            raise UsageError(f"{where}: answer {answer!r} is not among the choices {', '.join(letters)}")
        return Item(name, user(prompt), {"answer": answer, "letters": letters, "texts": list(texts)})

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the option chosen after the thinking is the right one, by its letter or by its words."""
        said, reference = visible(completion) or "", item.reference
        letters, texts = reference["letters"], reference.get("texts", ())
        found = None
        if len(said.strip()) == 1 or said.strip() not in texts:  # or else the E of "E = mc²" is a letter
            found = choice(said, letters, texts)
        if found is None and (place := quoted(said, texts)) is not None:
            found = Answer(letters[place], WORDS)
        return exact(found, found is not None and found.text == reference["answer"])

    def shuffled(
        self,
        name: str,
        question: str,
        options: Sequence[str],
        config: BenchmarkConfig,
        where: str,
        drawn_by: int | None = None,
    ) -> Item:
        """An item whose options, the right one first, are in an order drawn by its name and the seed.

        Or by the number `drawn_by`, where there is one.
        """
        given = self.options(config)
        order = list(range(len(options)))
        random.Random(f"{name} {given['seed']}" if drawn_by is None else drawn_by).shuffle(order)
        texts = [options[place].strip() for place in order]
        in_a_line = ", ".join(f"{LETTERS[place]}) {option}" for place, option in enumerate(texts))
        standard = lettered(question, texts, given["instruction"])
        prompt = asked(config, standard, question=question, options=in_a_line)
        return self.item(name, prompt, texts, LETTERS[order.index(0)], where)


@register("mmlu")
class Mmlu(Lettered):
    """MMLU: 57 subjects, four options (Hendrycks et al. 2021, arXiv 2009.03300).

    Options: `subject`, one of them (empty: all); `shots`, 0 to 5 examples of the subject's own before the
    question, in the form of its authors, and then without `instruction`.
    """

    defaults: ClassVar = {"instruction": INSTRUCTION, "subject": "", "shots": 0}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {question, A, B, C, D, answer} of test/SUBJECT_test.csv within a zip file."""
        options = self.options(config)
        if not 0 <= options["shots"] <= 5:
            raise UsageError(f"benchmark {config.name}: shots {options['shots']} is not between 0 and 5")
        remedy = "put the csv files of github.com/hendrycks/test (data.tar there) into a zip file there"
        path = source_file(config, data_root, "benchmarks/mmlu.zip", remedy)
        items = []
        with path.open("rb") as file, _opened(file, str(path)) as archive:
            for subject in _subjects(archive, options["subject"], f"benchmark {config.name}: {path}"):
                head = self._examples(archive, str(path), subject, options["shots"])
                after = "Answer:" if head else options["instruction"]
                rows = _rows(archive, str(path), f"test/{subject}_test.csv")
                for number, (question, *texts, answer) in enumerate(rows, start=1):
                    where = f"{path}, {subject}_test.csv, row {number}"
                    prompt = head + lettered(question, texts, after)
                    items.append(self.item(f"{subject}-{number}", prompt, texts, answer, where))
        return items

    def _examples(self, archive: zipfile.ZipFile, path: str, subject: str, shots: int) -> str:
        if not shots:
            return ""
        rows = _rows(archive, path, f"dev/{subject}_dev.csv")
        if len(rows) < shots:
            raise UsageError(f"{path}, {subject}_dev.csv: holds {len(rows)} examples, asked for {shots}")
        about = subject.replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {about}."
        shown = [lettered(question, texts, f"Answer: {answer}") for question, *texts, answer in rows[:shots]]
        return "\n\n".join([head, *shown, ""])


@register("mmlu_pro")
class MmluPro(Lettered):
    """MMLU-Pro: up to ten options (Wang et al. 2024, arXiv 2406.01574). Option `category`: one of 14."""

    defaults: ClassVar = {"instruction": INSTRUCTION, "category": ""}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {question_id, question, options, answer, category}; by default of a sample of 1,400."""
        options = self.options(config)
        remedy = (
            "write the test split of TIGER-Lab/MMLU-Pro there, or name its file with "
            "path hub:TIGER-Lab/MMLU-Pro:data/test-00000-of-00001.parquet"
        )
        items, categories = [], set()
        for where, row in table(config, data_root, "benchmarks/mmlu_pro_sample1400.jsonl", remedy):
            categories.add(text(row, "category", where))
            if options["category"] in ("", row["category"]):
                texts = [str(option).strip() for option in column(row, "options", where)]
                question = text(row, "question", where)
                prompt = asked(
                    config,
                    lettered(question, texts, options["instruction"]),
                    question=question,
                    options=lettered("", texts),
                )
                name = f"mmlu_pro-{text(row, 'question_id', where)}"
                items.append(self.item(name, prompt, texts, text(row, "answer", where), where))
        if not items:
            known = ", ".join(sorted(categories))
            raise UsageError(
                f"benchmark {config.name}: no category {options['category']!r}; there are {known}"
            )
        return items


@register("gpqa")
class Gpqa(Lettered):
    """GPQA-Diamond: 198 questions by experts (Rein et al. 2023, arXiv 2311.12022), which the user brings.

    The order of the options is drawn by the question and `seed`: the same in every process. By the protocol
    `paper` it is the one that Python's hash of the question gives where PYTHONHASHSEED is `hash_seed`.
    """

    public_items: ClassVar[int] = 198
    defaults: ClassVar = {"instruction": INSTRUCTION, "seed": 0, "hash_seed": 0}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {Question, Correct Answer, Incorrect Answer 1, 2 and 3, Record ID} of a file."""
        remedy = (
            "accept the terms at huggingface.co/datasets/Idavidrein/gpqa, and put its gpqa_diamond.csv "
            "there; its authors ask that nobody publish the questions in plain text"
        )
        columns = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
        rows = list(table(config, data_root, "benchmarks/gpqa_diamond.csv", remedy))
        questions = tuple(text(row, "Question", where) for where, row in rows)
        seeds: Sequence[int | None] = [None] * len(rows)
        if config.protocol == "paper":
            seeds = salted_seeds(questions, self.options(config)["hash_seed"])
        items = []
        for number, ((where, row), question, seed) in enumerate(zip(rows, questions, seeds, strict=True), 1):
            options = [text(row, name, where) for name in columns]
            name = f"gpqa-{row.get('Record ID') or number}"
            items.append(self.shuffled(name, question, options, config, where, seed))
        return items


@register("truthfulqa_choice")
class TruthfulQAChoice(Lettered):
    """TruthfulQA's best answer among its wrong ones (Lin et al. 2022, arXiv 2109.07958), as lettered options.

    The single-answer form of the public set, asked for a letter; MC1 by likelihood gives other numbers. The
    order of the options is drawn by the question and `seed`.
    """

    group: ClassVar[Group] = "general"
    defaults: ClassVar = {"instruction": INSTRUCTION, "seed": 0}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {Category, Question, Best Answer, Incorrect Answers} of TruthfulQA.csv."""
        remedy = "copy TruthfulQA.csv there from github.com/sylinrl/TruthfulQA"
        items = []
        rows = table(config, data_root, "benchmarks/TruthfulQA.csv", remedy)
        for number, (where, row) in enumerate(rows, start=1):
            wrong = [answer.strip() for answer in text(row, "Incorrect Answers", where).split(";")]
            options = [text(row, "Best Answer", where), *filter(None, wrong)]
            question = text(row, "Question", where)
            items.append(self.shuffled(f"truthfulqa-{number}", question, options, config, where))
        return items


def _opened(file: Any, path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise UsageError(f"{path}: is not a zip file") from None


def _subjects(archive: zipfile.ZipFile, wanted: str, where: str) -> list[str]:
    names = (name.rpartition("/") for name in archive.namelist())
    known = sorted(
        file.removesuffix("_test.csv")
        for folder, _, file in names
        if folder.endswith("test") and file.endswith("_test.csv")
    )
    if wanted and wanted not in known:
        raise UsageError(f"{where} holds no subject {wanted!r}; it has {', '.join(known) or 'none'}")
    return [wanted] if wanted else known


def _rows(archive: zipfile.ZipFile, path: str, ending: str) -> list[list[str]]:
    """The rows of the member with that ending, six fields each; UsageError naming what is malformed."""
    found = [name for name in archive.namelist() if f"/{name}".endswith(f"/{ending}")]
    if not found:
        raise UsageError(f"{path}: holds no {ending}")
    rows = list(csv.reader(io.StringIO(archive.read(found[0]).decode(), newline="")))
    for number, row in enumerate(rows, start=1):
        if len(row) != 6:
            raise UsageError(f"{path}, {ending}, row {number}: has {len(row)} fields instead of 6")
    return rows
