"""Leases under any order of events: takes, heartbeats, deaths, pauses and late releases of several processes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mmsurv.store.leases import Leases

EXPIRY = 10.0
PROCESSES = st.integers(0, 3)


class LeaseMachine(RuleBasedStateMachine):
    """Four processes and one slide. Each process has a clock that runs alike but began elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 0.0
        self.processes = [self._process(i) for i in range(4)]
        self.believes: set[int] = set()
        """Processes whose last take was granted and that have not released since."""
        self.last_beat = dict.fromkeys(range(4), 0.0)

    def _process(self, i: int) -> Leases:
        return Leases(
            Path(self.folder.name) / "leases", heartbeat_s=1e9, expiry_s=EXPIRY, clock=lambda: self.now + 1e6 * i
        )

    @rule(i=PROCESSES)
    def take(self, i: int) -> None:
        had = i in self.believes
        if self.processes[i].take("a"):
            if not had:
                others = {j for j in self.believes if self.now - self.last_beat[j] <= EXPIRY}
                assert not others, f"{others} beat in time and lost the slide to {i}"
                self.last_beat[i] = self.now
            self.believes.add(i)

    @rule(i=PROCESSES)
    def beat(self, i: int) -> None:
        self.processes[i].beat()
        if i in self.believes:
            if "a" in self.processes[i]._held:
                self.last_beat[i] = self.now
            else:
                self.believes.discard(i)

    @rule(i=PROCESSES)
    def release(self, i: int) -> None:
        others = self._owner_on_disk() if i not in self._owners() else None
        self.processes[i].release("a")
        self.believes.discard(i)
        if others is not None:
            assert self._owner_on_disk() == others, "a release took another's lease"

    @rule(i=PROCESSES)
    def die(self, i: int) -> None:
        self.processes[i]._held.clear()
        self.believes.discard(i)
        self.processes[i].close()
        self.processes[i] = self._process(i)

    @rule(seconds=st.floats(0.1, 2 * EXPIRY))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def nothing_blocks_and_nothing_piles_up(self) -> None:
        folder = Path(self.folder.name) / "leases"
        assert {path.name for path in folder.glob("*")} | {path.name for path in folder.glob(".*")} <= {"a.json"}

    def _owners(self) -> set[int]:
        """Processes whose lease is the one on disk."""
        disk = self._owner_on_disk()
        held = {i: process._held.get("a") for i, process in enumerate(self.processes)}
        return {i for i, one in held.items() if one is not None and one.holder.owner == disk}

    def _owner_on_disk(self) -> str | None:
        holder = self.processes[0].holder("a")
        return holder.owner if holder else None

    def teardown(self) -> None:
        for process in self.processes:
            process._held.clear()
        last = self._process(4)
        last.take("a")
        self.now += EXPIRY + 1
        assert last.take("a"), "the slide can be had once everybody is gone"
        for process in [*self.processes, last]:
            process.close()
        self.folder.cleanup()


LeaseMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLeases = LeaseMachine.TestCase
