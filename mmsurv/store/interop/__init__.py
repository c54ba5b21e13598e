"""Other tools' feature files: read into a store, and written from one.

A module per tool owns its layout, what is kept of it and what is lost: ``clam``, ``trident``, ``stamp``. ``foreign``
has what they share, ``importing`` and ``exporting`` the work over a folder. All of it is in docs/layouts.md.
"""
