"""Patients of another cohort, predicted with a run's models.

Owns how genes find their places (``genes``), who is no stranger to the models (``seen``), risks and survival on one
scale (``risks``), the order of the steps (``predict``), the folder (``folder``) and the command (``cli``).
"""
