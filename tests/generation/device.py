"""Stands in for the engine: does what plans say on made-up memory, and notices what must not happen."""

import random

import numpy as np

from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.schedule import Plan, Schedule
from jax_sft.generation.sequences import Landed
from jax_sft.generation.shards import Shape

STOP = 7


def answer(request: Request) -> list[int]:
    """New tokens of a request, as a model would make them: to its limit, or to a stop token before."""
    rng = random.Random(request.id + str(request.sample))
    length = rng.randint(1, request.max_new_tokens)
    last = STOP if length < request.max_new_tokens else rng.choice([STOP, 100])
    return [100 + n % 50 for n in range(length - 1)] + [last]


class Device:
    """Each position of a page holds (the tokens of the sequence up to it); pages are those of all shards."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.memory: dict[tuple[int, int], tuple[int, ...]] = {}
        """What the n-th page of a shard's holds: the prompt's tokens up to its end, or a sequence's own."""
        self.left: list[list[int]] = [[] for _ in range(shape.slots)]
        self.who: list[Request | None] = [None] * shape.slots
        self.position = [0] * shape.slots
        self.prefilled = 0
        self.starts: list[str] = []

    def shard(self, slot: int, count: int) -> int:
        return slot * self.shape.shards // count

    def prefill(self, plan: Plan) -> None:
        for call in plan.prefills:
            for row in np.flatnonzero(call.count_R):
                shard, page = self.shard(row, self.shape.prefill_rows), self.shape.page
                start, count = int(call.start_R[row]), int(call.count_R[row])
                before = tuple[int, ...]()
                if start:
                    before = self.memory[shard, int(call.table_RN[row, start // page - 1])]
                    assert len(before) == start, "the chunk before is not there"
                tokens = before + tuple(call.tokens_RC[row, :count].tolist())
                for nth, target in enumerate(call.write_RW[row].tolist()):
                    if target < self.shape.pages // self.shape.shards:
                        self.memory[shard, target] = tokens[: start + (nth + 1) * page]
                self.prefilled += count

    def copy(self, plan: Plan) -> None:
        """All are read before any is written; nothing is kept of decoded tokens."""
        held = {}
        for slot in np.flatnonzero(plan.copy_to_B < self.shape.pages).tolist():
            shard = self.shard(slot, self.shape.slots)
            source = shard, int(plan.copy_from_B[slot])
            held[shard, int(plan.copy_to_B[slot])] = self.memory.get(source, ())
        self.memory |= held

    def check_prompts(self, plan: Plan) -> None:
        """Whoever decodes still has the whole pages of its prompt, wherever they went."""
        for slot, request in enumerate(self.who):
            if request is None or not self.left[slot]:
                continue
            shard, known = self.shard(slot, self.shape.slots), request.prompt[:-1]
            for nth in range(len(known) // self.shape.page):
                held = self.memory[shard, int(plan.table_BN[slot, nth])]
                assert held == known[: (nth + 1) * self.shape.page], "its pages went elsewhere"

    def turn(self, plan: Plan) -> None:
        self.copy(plan)
        for slot in np.flatnonzero(plan.stops_B).tolist():
            self.left[slot] = []
        self.check_prompts(plan)
        for slot, request in plan.starts:
            assert not self.left[slot], "the slot is busy"
            self.left[slot], self.who[slot] = answer(request), request
            self.position[slot] = len(request.prompt) - 1
            self.starts.append(request.id)
            shard, known = self.shard(slot, self.shape.slots), request.prompt[:-1]
            for nth in range(-(-len(known) // self.shape.page)):
                held = self.memory[shard, int(plan.table_BN[slot, nth])]
                assert held == known[: (nth + 1) * self.shape.page], "its pages hold something else"

    def decode(self, plan: Plan) -> Landed:
        B, C, page = self.shape.slots, self.shape.chunk, self.shape.page
        tokens_BC, made_B = np.zeros((B, C), np.int32), np.zeros(B, np.int32)
        written: dict[tuple[int, int], int] = {}
        for slot in range(B):
            new = self.left[slot][:C]
            self.left[slot] = self.left[slot][C:]
            tokens_BC[slot, : len(new)], made_B[slot] = new, len(new)
            for place in range(self.position[slot], self.position[slot] + len(new)):
                key = self.shard(slot, B), int(plan.table_BN[slot, place // page])
                assert written.setdefault(key, slot) == slot, "two write to a page"
                held = self.memory.get(key, ())
                shared = self.who[slot].prompt[:-1] if self.who[slot] else ()  # what must stay
                assert held[: place % page] is not None
                if len(shared) > place - place % page:
                    assert held[: len(shared)] == shared
            self.position[slot] += len(new)
        active_B = np.array([bool(left) for left in self.left])
        return Landed(tokens_BC, np.zeros((B, C), np.float32), made_B, active_B)

    def run(self, schedule: Schedule, ahead: int = 0) -> list[tuple[Request, Completion]]:
        ended, air = [], list[Landed]()
        while schedule.unfinished:
            plan = schedule.plan()
            self.prefill(plan)
            if plan.busy:
                self.turn(plan)
                air.append(self.decode(plan))
            if len(air) > (ahead if plan.busy else 0):
                ended += schedule.collect(air.pop(0))
        return ended
