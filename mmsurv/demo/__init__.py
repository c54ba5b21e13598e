"""The demo: a simulated cohort with painted slides, and every command of the project run on it.

Knows the other commands by the command line only. ``tissue.write_slide`` is also how tests make slides.
"""
