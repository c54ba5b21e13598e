"""Sharing the slides of one store out among processes that know nothing of each other.

Owns what this process may take up now, and what it leaves to another. What is in the store decides; leases only keep
two processes from the same work.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mmsurv.store import Failure, FeatureStore
from mmsurv.store.leases import Leases
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.job import JobOptions
from mmsurv_extract.progress import Progress
from mmsurv_extract.stop import stop_if_set

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 20.0
"""Between two looks at slides that others encode: short at first, then such that many who wait are no burden."""
MAX_NAMED = 5

Settings = dict[str, str | int | float | bool | None]


def job_settings(options: JobOptions, max_tiles: int) -> Settings:
    """What besides the recipe may decide whether a slide fails; noted with a failure, and used again by a retry."""
    return {
        "max_tiles": max_tiles,
        "mpp": options.mpp.fill,
        "override_mpp": options.mpp.override,
        "mpp_from_objective": options.mpp.from_objective,
    }


class Share:
    """This process's part of the slides of a store.

    Args:
        store: the store.
        leases: of the store, as this process takes them.
        settings: see :func:`job_settings`.
    """

    def __init__(self, store: FeatureStore, leases: Leases, settings: Settings) -> None:
        self._store = store
        self._leases = leases
        self.settings = settings
        self._failed_before = {failure.slide_id: failure for failure in store.failures()}

    def take(self, slide_id: str) -> bool:
        """Whether the slide is ours to encode; False while another living process has it."""
        return self._leases.take(slide_id)

    def give_back(self, slide_id: str) -> None:
        self._leases.release(slide_id)

    def failed_elsewhere(self, source: SlideSource) -> Failure | None:
        """The failure another process noted since this job started, from the same file with the same settings.

        No clock is asked: what was noted before is known from the start.
        """
        failure = self._store.failure(source.slide_id)
        if failure is None or failure == self._failed_before.get(source.slide_id):
            return None
        same = failure.source == str(source.path.absolute()) and failure.settings == self.settings
        return failure if same else None

    def holders(self, sources: Sequence[SlideSource]) -> str:
        """Who has these slides, for a line in the log."""
        named = [
            f"{source.slide_id} ({self._leases.holder(source.slide_id) or 'a process that does not say who it is'})"
            for source in sources[:MAX_NAMED]
        ]
        more = f" and {len(sources) - MAX_NAMED} more" if len(sources) > MAX_NAMED else ""
        return ", ".join(named) + more


class Patience:
    """Waits for slides that others have: says so once, and looks less often the longer nothing changes."""

    def __init__(self, share: Share, progress: Progress, stop: threading.Event) -> None:
        self._share = share
        self._progress = progress
        self._stop = stop
        self._wait_s = FIRST_WAIT_S
        self._said = ""

    def wait(self, sources: Sequence[SlideSource]) -> None:
        """Until it is worth a look at these slides again.

        Raises:
            JobStopped: ``stop`` was set.
        """
        waiting_for = ", ".join(source.slide_id for source in sources)
        if waiting_for != self._said:
            self._said, self._wait_s = waiting_for, FIRST_WAIT_S
            self._progress.say(f"waiting for {len(sources)} slides of other processes: {self._share.holders(sources)}")
        self._stop.wait(self._wait_s)
        stop_if_set(self._stop)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
