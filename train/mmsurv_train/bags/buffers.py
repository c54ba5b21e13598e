"""Memory that passes over streamed bags read into.

Owns that all of it together stays within the budget, and that it is lent again and again rather than taken anew: the
system clears every page it gives out, which costs as much as reading it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Buffers:
    """Lends memory; whoever asks for more than is left waits until others give theirs back."""

    def __init__(self, budget: int) -> None:
        """
        Args:
            budget: bytes that are lent or kept at most, where no single buffer is larger.
        """
        self._budget = budget
        self._changed = threading.Condition()
        self._spare: list[Tensor] = []
        self._n_lent = 0
        self._borrowers: list[int] = []

    @contextmanager
    def lend(self, size: int) -> Iterator[Tensor]:
        """A buffer of at least ``size`` bytes, uint8.

        Raises:
            RuntimeError: there is no room, and this very thread holds what it would wait for.
        """
        borrower = threading.get_ident()
        with self._changed:
            if borrower in self._borrowers and not self._has_room(size):
                raise RuntimeError("no memory for another pass over streamed bags: use up or close the one before")
            self._changed.wait_for(lambda: self._has_room(size))
            buffer = self._spare_or_new(size)
            self._n_lent += len(buffer)
            self._borrowers.append(borrower)
        try:
            yield buffer
        finally:
            with self._changed:
                self._spare.append(buffer)
                self._n_lent -= len(buffer)
                self._borrowers.remove(borrower)
                self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return not self._n_lent or self._n_lent + size <= self._budget

    def _spare_or_new(self, size: int) -> Tensor:
        self._spare.sort(key=len)
        for place, buffer in enumerate(self._spare):
            if len(buffer) >= size and self._has_room(len(buffer)):
                return self._spare.pop(place)
        # What is too small, or too large beside what is lent, makes room first.
        while self._spare and self._n_lent + sum(map(len, self._spare)) + size > self._budget:
            self._spare.pop()
        return torch.empty(size, dtype=torch.uint8)
