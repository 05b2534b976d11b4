"""Which pages of the key/value memory are whose: free pages, holders, and what prompts have in common.

Plain Python on the host: no device and no array of one has a part in it. Every data shard has a book of its
own. The pages that are handed out are the lowest free ones, so that what is alive lies together.
"""

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class PrefixKeys(NamedTuple):
    """Names of what a prompt's pages hold; equal for prompts with the same tokens up to there."""

    full: tuple[bytes, ...]
    """Of each page that its tokens fill."""
    tail: bytes | None
    """Of the page that they fill in part; it is nobody else's, but may be copied."""


def prefix_keys(tokens: Sequence[int], page: int) -> PrefixKeys:
    """The names, each a hash of all tokens up to the page's last."""
    whole, full, name = np.asarray(tokens, np.int32), list[bytes](), b""
    for start in range(0, len(whole), page):
        held = whole[start : start + page]
        name = hashlib.blake2b(name + held.tobytes(), digest_size=16).digest()
        if len(held) < page:
            return PrefixKeys(tuple(full), name)
        full.append(name)
    return PrefixKeys(tuple(full), None)


class Book:
    """The pages of one data shard. A page is free when nobody holds it."""

    def __init__(self, pages: int) -> None:
        """All are free."""
        self.pages = pages
        self._free = list(range(pages))
        self._holders = [0] * pages
        self._named: dict[bytes, int] = {}
        self._name_of: dict[int, bytes] = {}

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """The lowest free pages, held by one; there must be as many."""
        taken = [heapq.heappop(self._free) for _ in range(count)]
        for page in taken:
            self._holders[page] = 1
        return taken

    def hold(self, page: int) -> None:
        """One more holds a page."""
        self._holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """One less holds each; what then is free has no name any more."""
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                heapq.heappush(self._free, page)
                name = self._name_of.pop(page, None)
                if name is not None and self._named.get(name) == page:
                    del self._named[name]

    def move(self, page: int) -> int:
        """The lowest free page takes the place, name and all, of one that has a single holder."""
        [to] = self.take(1)
        name = self._name_of.get(page)
        if name is not None and self._named.get(name) == page:
            self.name(to, name)
        self.release([page])
        return to

    def name(self, page: int, name: bytes) -> None:
        """Say what a page holds, now that it is there."""
        self._named[name] = page
        self._name_of[page] = name

    def find(self, name: bytes) -> int | None:
        """A page that holds what is so named."""
        return self._named.get(name)

    def is_shared(self, page: int) -> bool:
        """Whether more than one holds it."""
        return self._holders[page] > 1

    def shared(self) -> int:
        """Pages that more than one holds."""
        return sum(holders > 1 for holders in self._holders)
