"""One self-contained HTML page about one or more runs.

Owns what the page says (``content``), its figures (``figures``) and its look (``template.html``, ``style.css``).
"""

from __future__ import annotations

from typing import Any

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from mmsurv_train.report.page import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
