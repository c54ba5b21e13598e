"""The survival models: each a stack of networks side by side (docs/models.md).

``registry`` knows them by name, ``base`` what they have in common, ``parts`` what they are put together from,
``each_bag`` how those read tiles that form something of every one.
"""

from mmsurv_train.dims import Dims
from mmsurv_train.models.base import MeanPooling, Pooled, SurvivalModel
from mmsurv_train.models.known import Known
from mmsurv_train.models.registry import PER_NETWORK, build_model, build_stack, model_names, n_parameters, narrow

__all__ = [
    "PER_NETWORK",
    "Dims",
    "Known",
    "MeanPooling",
    "Pooled",
    "SurvivalModel",
    "build_model",
    "build_stack",
    "model_names",
    "n_parameters",
    "narrow",
]
