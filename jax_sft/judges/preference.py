"""Which of two responses is better, asked in both orders, because models prefer a place."""

from collections.abc import Sequence
from typing import ClassVar

from jax_sft.judges.page import Conversation, Judge, Question, Reading, filled, prompt_text, said, user


class Preference(Judge):
    """AlpacaEval's prompt: names the better of the models m and M; any instructed model will do."""

    name = "preference"
    max_new_tokens = 16
    compares = True
    metrics: ClassVar = {"preferred": True, "consistent": True}
    headline = "preferred"
    meaning = (
        "share of responses preferred to the other one, a tie (each order prefers another) counting half; "
        "share of pairs judged alike in both orders"
    )
    source = (
        "github.com/tatsu-lab/alpaca_eval, evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt "
        "at cd543a1; arXiv 2404.04475"
    )
    licence = "prompt Apache-2.0; the benchmark's instructions and outputs CC-BY-NC-4.0, brought by you"

    def conversations(self, question: Question) -> tuple[Conversation, ...]:
        """The response as m and the other as M, then the other way round."""
        pairs = ((question.response, question.other), (question.other, question.response))
        return tuple(_turns(question.request, first, second) for first, second in pairs)

    def read(self, outputs: Sequence[str]) -> Reading | None:
        """Both orders are needed; the last character names the better."""
        first, second = (said(output)[-1:] for output in outputs)
        if not {first, second} <= {"m", "M"}:
            return None
        wins = (first == "m") + (second == "M")
        metrics = {"preferred": wins / 2, "consistent": float(wins != 1)}
        return Reading(metrics, ("lost", "tie", "won")[wins])


def _turns(instruction: str, first: str, second: str) -> Conversation:
    """The prompt's ChatML as turns, each stripped, as alpaca_eval reads it."""
    system, asked = (
        part.partition("\n")[2].partition("<|im_end|>")[0].strip()
        for part in prompt_text("preference.txt").split("<|im_start|>")[1:]
    )
    return user(filled(asked, instruction=instruction, output_1=first, output_2=second), system)
