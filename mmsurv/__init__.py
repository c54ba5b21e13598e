"""Survival from whole-slide images and RNA: the core shared by both stages.

Owns the feature store's format, cohorts, splits, configuration and the command line; needs neither torch nor
openslide. Stage 1 lives in ``mmsurv_extract``, stage 2 in ``mmsurv_train``.
"""

__version__ = "0.1.0"
