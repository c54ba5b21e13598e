"""Who holds a lease: the process, its machine, its Slurm job.

Owns the content of a lease's file, and whether its holder is known to have ended.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import socket
from dataclasses import dataclass

from mmsurv.store import processes


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as its file says."""

    owner: str
    """Random, new for each lease."""
    host: str
    pid: int
    started: str
    """When the process started, in its kernel's own count; tells it from a later one with the same number."""
    machine: str
    """Names the kernel and process namespace in which ``pid`` means something; empty where that is not known."""
    job: str
    """Slurm's job and array task, or empty."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}{f', job {self.job}' if self.job else ''}"


def ourselves() -> Holder:
    """This process, as the holder of a new lease."""
    pid = os.getpid()
    return Holder(
        owner=secrets.token_hex(16),
        host=socket.gethostname(),
        pid=pid,
        started=processes.start_time(pid) or "",
        machine=processes.machine(),
        job=_job(),
    )


def _job() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def has_ended(holder: Holder) -> bool:
    """Whether it is known, without waiting, that the process is no more."""
    return _is_here(holder) and processes.has_ended(holder.pid, holder.started)


def lives_here(holder: Holder) -> bool:
    """Whether it is a process of this machine that runs, or may."""
    return _is_here(holder) and not processes.has_ended(holder.pid, holder.started)


def _is_here(holder: Holder) -> bool:
    return holder.machine != "" and holder.machine == processes.machine()


def content(holder: Holder, beats: int) -> bytes:
    """What the file of a lease holds."""
    # The count is of fixed width, so that a heartbeat rewrites the file in place at one length.
    return json.dumps({"heartbeat": f"{beats:012d}", **dataclasses.asdict(holder)}).encode()


def parse(text: bytes) -> Holder | None:
    """The holder, or None for a file that is empty, half written or no lease."""
    try:
        table = json.loads(text)
        del table["heartbeat"]
        holder = Holder(**table)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (holder.owner, holder.host, holder.started, holder.machine, holder.job)
    return holder if type(holder.pid) is int and holder.pid > 0 and all(isinstance(t, str) for t in texts) else None


def owner_of(text: bytes) -> str | None:
    """The owner, or None as for :func:`parse`."""
    holder = parse(text)
    return holder.owner if holder else None
