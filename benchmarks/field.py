"""The baselines: attention with keys and values formed, and a trainer that loads one slide per step.

Written anew after what MCAT and its family do, in the cheapest form that computes the same function as ours.
Imported by the scripts beside it; has nothing to run.

Shape suffixes: B bags, N tiles, D feature dim, E attention dim, Q queries, H heads, F = E / H, G genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from mmsurv_train.cox import neg_log_partial_likelihood


@dataclass(frozen=True)
class Projections:
    """Of keys (no bias: it would drop out of the softmax) and values."""

    key: Tensor
    """(E, D)"""
    value: Tensor
    """(E, D)"""
    bias: Tensor
    """(E,), of the values."""
    heads: int = 1


def attend(query_BQE: Tensor, x_BND: Tensor, weights: Projections) -> Tensor:
    """Cross-attention with keys and values formed, (B, Q, E)."""
    key_BNE = functional.linear(x_BND, weights.key)
    value_BNE = functional.linear(x_BND, weights.value, weights.bias)
    query_BHQF, key_BHNF, value_BHNF = (
        part.unflatten(2, (weights.heads, -1)).transpose(1, 2) for part in (query_BQE, key_BNE, value_BNE)
    )
    return functional.scaled_dot_product_attention(query_BHQF, key_BHNF, value_BHNF).transpose(1, 2).flatten(2)


def padded(query_BQE: Tensor, bags: Sequence[Tensor], weights: Projections) -> Tensor:
    """All bags as one float32 tensor. They must be of one length, so that nothing is padded and no mask is needed."""
    x_BND = torch.empty(len(bags), *bags[0].shape)
    for x_ND, bag in zip(x_BND, bags, strict=True):
        x_ND.copy_(bag)
    return attend(query_BQE, x_BND, weights)


def per_bag(query_BQE: Tensor, bags: Sequence[Tensor], weights: Projections) -> Tensor:
    """Bag by bag."""
    outs = [attend(query_QE[None], bag.float()[None], weights) for query_QE, bag in zip(query_BQE, bags, strict=True)]
    return torch.cat(outs)


class Slides(Dataset):
    """One slide an item, read from its HDF5 file when it is asked for."""

    def __init__(self, files: Sequence[Path], rna_BG: Tensor, size: int) -> None:
        """
        Args:
            files: of the slides.
            rna_BG: of their patients.
            size: tiles of a bag, read as one random window of the rows; 0 = all.
        """
        self.files, self.rna, self.size = list(files), rna_BG, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        with h5py.File(self.files[index]) as file:
            features = file["features"]
            start = int(torch.randint(len(features) - self.size + 1, ())) if self.size else 0
            rows_ND: np.ndarray = features[start : start + (self.size or len(features))]
        return torch.from_numpy(rows_ND), self.rna[index], index


class FieldModel(nn.Module):
    """The paper's cross-attention: a linear query of the RNA, attended mean of the tiles, linear risk."""

    def __init__(self, *, n_genes: int, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(n_genes, dim)
        self.key = nn.Linear(feature_dim, dim, bias=False)
        self.value = nn.Linear(feature_dim, dim)
        self.head = nn.Linear(dim, 1, bias=False)

    def forward(self, x_1ND: Tensor, rna_1G: Tensor) -> Tensor:
        weights = Projections(self.key.weight, self.value.weight, self.value.bias)
        return self.head(attend(self.query(rna_1G)[:, None], x_1ND.float(), weights))[:, 0, 0]


@dataclass(frozen=True)
class Part:
    """Slides to train or validate on, one a patient."""

    files: Sequence[Path]
    rna: Tensor
    """(B, G)"""
    time: Tensor
    event: Tensor

    def loader(self, *, size: int, workers: int, shuffle: bool) -> DataLoader:
        """Batches of one slide. Workers stay between epochs, which is cheaper than starting them for each."""
        slides = Slides(self.files, self.rna, size)
        return DataLoader(slides, batch_size=1, shuffle=shuffle, num_workers=workers, persistent_workers=workers > 0)


class Trainer:
    """One slide per step; the Cox loss of ``batch`` slides, whose graphs are kept, makes one backward pass.

    The other way to a Cox loss at batch size 1, a second forward pass for the gradients, would cost a third more.
    """

    def __init__(
        self, model: FieldModel, train: Part, validation: Part, *, size: int, workers: int, batch: int, lr: float
    ) -> None:
        self.model, self.batch = model, batch
        self.train, self.validation = train, validation
        self.optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        self.loaders = [part.loader(size=size, workers=workers, shuffle=part is train) for part in (train, validation)]
        for loader in self.loaders:
            next(iter(loader))  # starts the workers

    def epoch(self) -> Tensor:
        """Train, then validate; the validation loss."""
        self.model.train()
        risks: list[Tensor] = []
        rows: list[int] = []
        for step, (x_1ND, rna_1G, index_1) in enumerate(self.loaders[0], 1):
            risks.append(self.model(x_1ND, rna_1G))
            rows.append(int(index_1))
            if len(rows) == self.batch or step == len(self.loaders[0]):
                self.optimizer.zero_grad()
                self._loss(torch.cat(risks), self.train, rows).backward()
                self.optimizer.step()
                risks, rows = [], []
        return self._loss(self.validate(), self.validation, slice(None))

    @torch.no_grad()
    def validate(self) -> Tensor:
        """Risk of every validation slide, (B,)."""
        self.model.eval()
        return torch.cat([self.model(x_1ND, rna_1G) for x_1ND, rna_1G, _ in self.loaders[1]])

    def _loss(self, risk_B: Tensor, part: Part, rows: Sequence[int] | slice) -> Tensor:
        return neg_log_partial_likelihood(risk_B, part.time[rows], part.event[rows], ties="breslow")
