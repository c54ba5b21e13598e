"""Recipes of stage 2 shipped with the package; ``--recipe NAME`` finds them here."""
