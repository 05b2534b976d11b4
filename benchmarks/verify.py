"""Minutes that `jax-sft data verify` takes for 20,000 responses, right, wrong and without an answer.

    python benchmarks/verify.py ../shared/data

Responses are made from the solutions of MATH-500 and GSM8K (test): as they are, with another problem's
answer, or with the answer taken out, each behind a thinking block of its own.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jax_sft.options import VerifyOptions
from jax_sft.sets.verify import verify


def problems(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(problem, solution, answer) of 500 competition problems and 500 word problems."""
    for line in (folder / "benchmarks/math500.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield row["problem"], row["solution"], row["answer"]
    for line in (folder / "benchmarks/gsm8k_test.jsonl").read_text().splitlines()[:500]:
        row = json.loads(line)
        answer = row["answer"].rsplit("####", 1)[-1].strip()
        yield row["question"], row["answer"].replace("####", "The answer is") + ".", answer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--responses", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    known = list(problems(arguments.data))
    with tempfile.TemporaryDirectory() as scratch:
        pool = Path(scratch) / "pool.jsonl"
        with pool.open("w") as stream:
            for number in range(arguments.responses):
                problem, solution, answer = known[number % len(known)]
                other = known[(number + 1) % len(known)][1]
                draft = number // len(known)
                kinds = (solution, other, re.sub(r"\\boxed|\$|\d", "", solution), solution)
                response = (
                    f"<think>\nDraft {draft}: let me see. {solution[:400]}\n</think>\n\n{kinds[draft % 4]}"
                )
                row = {"id": number, "question": problem, "answer": answer, "response": response}
                stream.write(json.dumps(row) + "\n")
        start = time.perf_counter()
        report = verify(pool, Path(scratch) / "set.jsonl", VerifyOptions(workers=arguments.workers))
        minutes = (time.perf_counter() - start) / 60
    print(f"{arguments.responses} responses, {arguments.workers} processes: {minutes:.1f} minutes; {report}")


if __name__ == "__main__":
    main()
