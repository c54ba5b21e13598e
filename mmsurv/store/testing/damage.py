"""What a backend does when bytes are changed beside its back, or the disk gives out."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mmsurv.errors import CorruptRecordError, StoreError
from mmsurv.store import FeatureStore, create_store, open_store
from mmsurv.store import commit as commits
from mmsurv.store.testing.records import RECIPE, make_record

_FLIP_EVERY_BYTE = """
import sys
from mmsurv.store import open_store
store = open_store(sys.argv[1])
path = store.record_path("slide-1")
whole, noticed = path.read_bytes(), 0
for at in range(0, len(whole), 3):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
    noticed += bool(store.verify("slide-1"))
print(noticed)
"""

_NOTICED = "(not the bytes that were written|Bad CRC)"

_WRITE_WITH_LITTLE_ROOM = """
import resource, signal, sys
from mmsurv.store import open_store
from mmsurv.store.testing import make_record
store = open_store(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    store.write(make_record(tiles=600))
except OSError as error:
    print(type(error).__name__, error)
"""


class DamageContract:
    """A part of ``StoreContract``."""

    backend: ClassVar[str]

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return create_store(tmp_path / "störe with spaces", recipe=RECIPE, dim=8, backend=self.backend)

    def test_flipped_bits_are_noticed(self, store: FeatureStore) -> None:
        record = make_record()
        store.write(record)
        path = store.record_path("slide-1")
        whole = path.read_bytes()
        at = whole.index(record.features.tobytes()[:64]) + 21
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert re.search(_NOTICED, store.verify("slide-1")[0])
        with pytest.raises(CorruptRecordError, match=f"slide-1.*{_NOTICED}"):
            open_store(store.path).features("slide-1", slice(0, 1))

    def test_no_flipped_bit_hangs_or_crashes_a_reader(self, store: FeatureStore) -> None:
        """Every byte that is not a feature, in another process, since damage can send a library into a loop."""
        store.write(make_record(tiles=4))
        probe = subprocess.run(
            [sys.executable, "-c", _FLIP_EVERY_BYTE, str(store.path)],
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert probe.returncode == 0, probe.stderr[-2000:]
        n_noticed = int(probe.stdout)
        assert n_noticed > 500, "flips of what means something are noticed"

    def test_changed_coordinates_are_noticed(self, store: FeatureStore) -> None:
        record = make_record()
        store.write(record)
        path = store.record_path("slide-1")
        whole = path.read_bytes()
        at = whole.index(record.coords.tobytes()[:64]) + 1
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptRecordError, match=r"coordinates, attributes or images|Bad CRC"):
            store.read("slide-1")

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    def test_a_truncated_record_is_not_done_and_is_written_again(self, store: FeatureStore, share: float) -> None:
        store.write(make_record())
        path = store.record_path("slide-1")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert store.verify("slide-1")
        with pytest.raises(CorruptRecordError, match="slide-1"):
            open_store(store.path).features("slide-1")
        assert store.write(make_record())
        assert store.verify("slide-1") == []
        assert len(store.leftovers()) == 1, "the damaged file is kept aside"

    @pytest.mark.parametrize("kind", ["folder", "dangling link"])
    @pytest.mark.parametrize("extend", [False, True])
    def test_what_is_no_file_at_a_records_place_is_named(self, store: FeatureStore, kind: str, extend: bool) -> None:
        place = store.record_path("slide-1")
        if kind == "folder":
            place.mkdir(parents=True)
        else:
            place.symlink_to("nowhere")
        with pytest.raises(StoreError, match=r"slide-1\..* is no file.*Move it away"):
            store.write(make_record(), extend=extend)
        assert os.path.lexists(place)
        assert store.leftovers() == []

    def test_a_record_under_another_slides_name_is_refused(self, store: FeatureStore) -> None:
        store.write(make_record())
        store.record_path("slide-1").rename(store.record_path("slide-2"))
        with pytest.raises(CorruptRecordError, match="holds slide 'slide-1'"):
            store.features("slide-2")

    @pytest.mark.parametrize("failing", ["write", "fsync", "link"])
    def test_a_full_disk_leaves_nothing(
        self, store: FeatureStore, failing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: object, **kwargs: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if failing == "write":
            monkeypatch.setattr(store, "write_file", full)
        elif failing == "fsync":
            monkeypatch.setattr(commits.os, "fsync", full)
        else:
            monkeypatch.setattr(commits.os, "link", full)
        with pytest.raises(OSError, match="No space left"):
            store.write(make_record())
        monkeypatch.undo()
        assert list((store.path / "slides").iterdir()) == []
        assert store.write(make_record())

    @pytest.mark.parametrize("room", [0, 500, 5_000, 15_000])
    def test_a_file_that_cannot_grow_is_an_error_and_leaves_nothing(self, store: FeatureStore, room: int) -> None:
        """The operating system refuses the write in the middle of the file, at whatever the library is doing there."""
        probe = subprocess.run(
            [sys.executable, "-c", _WRITE_WITH_LITTLE_ROOM, str(store.path), str(room)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert probe.returncode == 0, probe.stderr[-2000:]
        assert "File too large" in probe.stdout
        assert not probe.stderr
        assert list((store.path / "slides").iterdir()) == []

    def test_without_hard_links_a_record_is_still_published_once(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unsupported(*args: object, **kwargs: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(commits.os, "link", unsupported)
        assert store.write(make_record(seed=1))
        assert not store.write(make_record(seed=2))
        np.testing.assert_array_equal(store.features("slide-1"), make_record(seed=1).features)
