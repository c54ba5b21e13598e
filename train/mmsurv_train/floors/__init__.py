"""The simple models that a fusion model must beat, and on whose risk it may be built (docs/models.md).

``ridge`` is the penalised Cox regression of one modality, ``stacked`` a Cox regression on several of them.
"""

from mmsurv_train.floors.ridge import RidgeCox, RidgeScore
from mmsurv_train.floors.stacked import Stacked

__all__ = ["RidgeCox", "RidgeScore", "Stacked"]
