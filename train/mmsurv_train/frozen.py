"""What is fitted on the training part before networks are, and does not move with them: components of RNA, and a base.

Shape suffixes: B patients, G genes, K components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from mmsurv_train.floors.stacked import FittedStack


@dataclass(frozen=True, kw_only=True, eq=False)
class Frozen:
    """Of one network."""

    components: np.ndarray | None = None
    """(K, G): ``rna @ components.T`` are principal components of variance 1 over the training patients."""
    tile_components: np.ndarray | None = None
    """(K, D): the same of standardised tile features, all divided by the standard deviation of the first."""
    base: FittedStack | None = None
    """The regression whose risk the network adds to."""


def tile_components(covariance_DD: np.ndarray, k: int) -> np.ndarray:
    """The first k principal components of standardised tile features, (k, D) float64, in units of the first's spread.

    The first has variance 1; later ones keep their smaller share, so that what varies little cannot shout.
    """
    with threadpool_limits(1, user_api="blas"):
        spread_D, axes_DD = np.linalg.eigh(covariance_DD)
    axes_KD = axes_DD[:, ::-1][:, :k].T
    signs_K = np.sign(axes_KD[np.arange(len(axes_KD)), np.abs(axes_KD).argmax(1)])
    return axes_KD * (signs_K / np.sqrt(max(spread_D[-1], np.finfo(float).tiny)))[:, None]


def principal_components(rna_BG: np.ndarray, k: int) -> np.ndarray:
    """The first k principal components of the training patients' RNA, (k, G) float64, each scaled to variance 1.

    Each component's sign is that of its largest weight, so that it is the same on every machine. Components that the
    patients do not have are 0.
    """
    centred_BG = np.asarray(rna_BG, np.float64) - np.mean(rna_BG, axis=0, dtype=np.float64)
    with threadpool_limits(1, user_api="blas"):  # another number of threads might sum in another order
        _, spread_R, axes_RG = np.linalg.svd(centred_BG, full_matrices=False)
    spread_R = spread_R / np.sqrt(len(rna_BG))
    known = min(k, int((spread_R > 1e-9 * spread_R.max(initial=0.0)).sum()))
    axes_KG = axes_RG[:known]
    signs_K = np.sign(axes_KG[np.arange(known), np.abs(axes_KG).argmax(1)])
    found_KG = np.zeros((k, rna_BG.shape[1]))
    found_KG[:known] = axes_KG * (signs_K / spread_R[:known])[:, None]
    return found_KG
