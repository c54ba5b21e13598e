"""Runs compared on the patients they share: paired bootstrap over patients, tables, a forest plot.

Owns what is compared (``items``, ``shared``), the statistics of pairs (``paired``), their order and record
(``comparison``), their words (``text``), their picture (``figure``), the folder (``writing``) and the command
(``cli``).
"""
