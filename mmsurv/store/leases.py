"""Who is encoding a slide now, so that many processes on one store do not do the same work.

Owns ``leases/<slide_id>.json``: its heartbeat, when it is dead and how it changes hands. Leases are advisory.
Correctness never depends on them, because a record is published once whoever writes it; a lost, stolen or doubled
lease costs time only.

No clock is compared with another: a holder counts, and an observer measures with its own monotonic clock how long the
count has stood still. A holder that is known to run on the observer's machine is asked for by its process instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mmsurv.store import holders
from mmsurv.store.holders import Holder
from mmsurv.store.ids import check_slide_id, is_slide_id
from mmsurv.store.place import require_folder

logger = logging.getLogger("mmsurv")

HEARTBEAT_S = 10.0
"""A holder counts this often."""
EXPIRY_S = 120.0
"""A lease whose content has stood still this long is dead. Well above the 60 s for which NFS may show an old file."""

HEIR = ".heir"
"""Ends the name of a lease on its way to or from its own name. One whose maker died there is nobody's lease."""


@dataclass
class _Held:
    descriptor: int
    holder: Holder
    beats: int = 0


class Leases:
    """The leases of a store, as one process takes and sees them. Use as a context manager: leaving gives all back.

    Args:
        folder: the store's ``leases`` folder; made when the first lease is taken.
        heartbeat_s: seconds between two heartbeats.
        expiry_s: seconds without a heartbeat after which another's lease is dead.
        clock: the observer's own monotonic clock, seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        expiry_s: float = EXPIRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._heartbeat_s = heartbeat_s
        self._expiry_s = expiry_s
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    def __enter__(self) -> Leases:
        """Raises StoreError if there is something else where the folder belongs."""
        require_folder(self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self, slide_id: str) -> bool:
        """Take the lease of a slide, from a dead holder too.

        Returns:
            False if another living process holds it. True if it is ours now, or if leases cannot be made here: that
            is logged once, and the work goes on without.

        Raises:
            BadSlideIdError: an id that cannot be a file name.
        """
        path = self._path(slide_id)
        with self._lock:
            if slide_id in self._held:
                return True
            try:
                self._folder.mkdir(exist_ok=True)
                held = _create(path) or self._inherit(path)
            except OSError as error:
                self._warn(error)
                return True
            if held is None:
                return False
            self._held[slide_id] = held
            self._keep_beating()
            return True

    def release(self, slide_id: str) -> None:
        """Give a lease back; nothing happens if it is not, or no longer, ours."""
        with self._lock:
            held = self._held.pop(slide_id, None)
            if held is None:
                return
            path = self._path(slide_id)
            with contextlib.suppress(OSError):
                if self._owner(path) == held.holder.owner:
                    _take_away(path, held.holder.owner)
            with contextlib.suppress(OSError):
                os.close(held.descriptor)

    def holder(self, slide_id: str) -> Holder | None:
        """Who holds the slide's lease, dead or alive; None if nobody does or the file does not say."""
        try:
            return holders.parse(self._path(slide_id).read_bytes())
        except OSError:
            return None

    def sweep(self) -> None:
        """Take away the leases that are known to be dead now; they would be in nobody's way, but they look alive."""
        with contextlib.suppress(OSError), self._lock:
            for path in sorted(self._folder.glob("*.json")):
                if is_slide_id(path.stem) and path.stem not in self._held and (held := self._inherit(path)):
                    self._held[path.stem] = held
                    self.release(path.stem)
            for path in sorted(self._folder.glob(f".*{HEIR}")):
                self._clear_if_dead(path)

    def beat(self) -> None:
        """Count on in every lease held; a lease that was taken from us is let go."""
        with self._lock:
            for slide_id, held in list(self._held.items()):
                try:
                    if self._owner(self._path(slide_id)) != held.holder.owner:
                        self._lose(slide_id)
                        continue
                    held.beats += 1
                    # Into the file we made, by its descriptor: whatever has the name now, no other's is written to.
                    os.pwrite(held.descriptor, holders.content(held.holder, held.beats), 0)
                    os.fsync(held.descriptor)
                except OSError as error:
                    self._warn(error)

    def close(self) -> None:
        """Stop the heartbeat and give every lease back."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for slide_id in list(self._held):
            self.release(slide_id)

    def _path(self, slide_id: str) -> Path:
        return self._folder / f"{check_slide_id(slide_id)}.json"

    def _inherit(self, path: Path) -> _Held | None:
        """Our lease in the place of a dead one; None if it is alive, or another process was quicker.

        Of several thieves one makes the file that is named after the dead lease's content, and its lease takes the
        dead one's place in one rename, so that the name is never free meanwhile and no living lease is touched.
        """
        try:
            content = path.read_bytes()
            if not self._is_dead(path.name, content):
                return None
            heir = path.with_name(f".{path.stem}.{hashlib.sha256(content).hexdigest()[:12]}{HEIR}")
            held = _create(heir)
            if held is None:
                self._clear_if_dead(heir)
                return None
        except FileNotFoundError:
            return None
        try:
            if path.read_bytes() == content:
                heir.rename(path)
                whose = holders.parse(content) or "an unknown process"
                logger.info("%s: the lease of %s is dead and was taken over.", path.stem, whose)
                return held
        except FileNotFoundError:
            pass
        os.close(held.descriptor)
        heir.unlink(missing_ok=True)
        return None

    def _clear_if_dead(self, heir: Path) -> None:
        """Remove what a thief left that died between its two steps. If it lives after all, its rename fails."""
        with contextlib.suppress(FileNotFoundError):
            if self._is_dead(heir.name, heir.read_bytes()):
                heir.unlink()

    def _is_dead(self, name: str, content: bytes) -> bool:
        holder = holders.parse(content)
        if holder is not None and holders.has_ended(holder):
            return True
        now = self._clock()
        before, since = self._seen.get(name, (None, now))
        if before != content:
            self._seen[name] = (content, now)
            return False
        return now - since > self._expiry_s

    def _owner(self, path: Path) -> str | None:
        try:
            return holders.owner_of(path.read_bytes())
        except FileNotFoundError:
            return None

    def _lose(self, slide_id: str) -> None:
        held = self._held.pop(slide_id)
        os.close(held.descriptor)
        logger.warning(
            "%s: our lease of this slide was taken away, as is done when no heartbeat is seen for %g s. If another "
            "process encodes it now too, the first whole record stays.", slide_id, self._expiry_s,
        )  # fmt: skip

    def _keep_beating(self) -> None:
        if self._thread is None and not self._closed.is_set():
            self._thread = threading.Thread(target=self._run, name="lease-heartbeat", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(self._heartbeat_s):
            self.beat()

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: leases cannot be kept there (%s). The work goes on without; other processes on this store may "
                "encode the same slides, and the first whole record of each stays.", self._folder, error,
            )  # fmt: skip


def _create(path: Path) -> _Held | None:
    """A new lease of ours at ``path``, or None if there is a file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return None
    held = _Held(descriptor, holders.ourselves())
    try:
        os.pwrite(descriptor, holders.content(held.holder, held.beats), 0)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return held


def _take_away(path: Path, owner: str) -> None:
    """Remove the lease at ``path`` if it is this owner's.

    It is renamed first and looked at then: between a look and a removal it could become another's. What turns out to
    be another's is put back.
    """
    aside = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{HEIR}")
    try:
        path.rename(aside)
        content = aside.read_bytes()
    except FileNotFoundError:
        return
    if holders.owner_of(content) == owner:
        aside.unlink(missing_ok=True)
        return
    try:
        os.link(aside, path)
    except FileExistsError:
        pass  # a third process was quicker; the one we took it from will see that and go on without
    except OSError:
        if not path.exists():
            aside.rename(path)
    aside.unlink(missing_ok=True)
