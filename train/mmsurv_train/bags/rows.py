"""Where the rows of bags come from: the interface, and rows that lie in memory or in mapped files.

Owns what the ways of reading share. Which one is used changes no bit of what is read.

Shape suffixes: N tiles, D feature dim.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mmsurv_train.bags.records import Record
from mmsurv_train.bags.windows import Span

LOOK_EVERY = 1.0
"""Seconds between looks at whether mapped files are still what they were."""


class Rows(ABC):
    """Rows of slides, read by spans."""

    way: ClassVar[str]

    @abstractmethod
    def read(self, spans: Sequence[Span]) -> list[Tensor]:
        """A tensor (n, D) for each span, which stays as it is; a view where the rows lie in memory."""

    @abstractmethod
    def pieces(self, bags: Sequence[Sequence[Span]], readers: int) -> Generator[list[Tensor], None, None]:
        """For each bag a tensor (n, D) for each span, valid until the next bag is asked for.

        Args:
            bags: what is wanted, in order.
            readers: how many such passes are at work at once, this one among them; each in a thread of its own.
        """

    @abstractmethod
    def check(self, bags: Sequence[Sequence[Span]]) -> None:
        """Raise ConfigError or StoreError if these bags cannot be read."""

    @abstractmethod
    def on(self, device: torch.device) -> Mapping[str, Tensor]:
        """All rows of each slide on a device."""


class Resident(Rows):
    """Slides as tensors: mapped, in memory, or on a device."""

    way = "memory"

    def __init__(self, slides: Mapping[str, Tensor]) -> None:
        self._slides = slides

    def read(self, spans: Sequence[Span]) -> list[Tensor]:
        return [self._slides[slide_id][start:stop] for slide_id, start, stop in spans]

    def pieces(self, bags: Sequence[Sequence[Span]], readers: int) -> Generator[list[Tensor], None, None]:
        for spans in bags:
            yield self.read(spans)

    def check(self, bags: Sequence[Sequence[Span]]) -> None:
        """Nothing that lies in memory can fail to be read."""

    def on(self, device: torch.device) -> Mapping[str, Tensor]:
        return {slide_id: x_ND.to(device) for slide_id, x_ND in self._slides.items()}


class Mapped(Resident):
    """Slides some of which, or all, are mapped files."""

    way = "mapped"

    def __init__(self, slides: Mapping[str, Tensor], records: Iterable[Record]) -> None:
        """
        Args:
            slides: all of them.
            records: of those that are mapped.
        """
        super().__init__(slides)
        self._records = tuple(records)
        self._looked = time.monotonic()

    def check(self, bags: Sequence[Sequence[Span]]) -> None:
        # A page behind a file's end kills the process. That a file was cut short is said here, before it is met.
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        for record in self._records:
            record.require_unchanged()
        self._looked = time.monotonic()
