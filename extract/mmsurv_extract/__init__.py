"""Stage 1: slides to a feature store.

The only package that opens slides and runs encoders. ``cli`` is the command, ``run`` the job, ``slide`` the only
OpenSlide import, ``encoder`` the frozen network. Imports the core, never the trainer.
"""
