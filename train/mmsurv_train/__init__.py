"""Stage 2: survival models on cached features.

Never sees a pixel. ``cli`` has the commands, ``train`` one run from recipe to folder, ``fusion`` the models, ``fit``
the loop, ``scores`` what is measured. Imports the core, never stage 1.
"""
