"""Recipes of stage 1 shipped with the package; ``--recipe NAME`` finds them here."""
