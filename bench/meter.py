"""CPU time and memory of processes, and what everything else on the machine took meanwhile."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """At one moment: CPU seconds that each group of processes, and the whole machine, have used since they began."""

    at: float
    cpu_s: Mapping[str, float]
    machine_s: float

    def since(self, begin: "Reading") -> "Reading":
        """What was used between the two; `at` is then the seconds between them."""
        used = {name: value - begin.cpu_s[name] for name, value in self.cpu_s.items()}
        return Reading(at=self.at - begin.at, cpu_s=used, machine_s=self.machine_s - begin.machine_s)

    def other_cores(self) -> float:
        """Of a difference: how many cores worked for processes that are in no group. What the kernel rounds can make it < 0."""
        return max(0.0, (self.machine_s - sum(self.cpu_s.values())) / self.at)


class Meter:
    """Reads groups of processes by name. The process that measures is in the group "client"."""

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        groups = {**pids, "client": [os.getpid()]}
        self._groups = {name: [psutil.Process(pid) for pid in members] for name, members in groups.items()}

    def read(self) -> Reading:
        """Now. The kernel counts in hundredths of a second, so that windows of a second or more are good to 1 %."""
        cpu_s = {name: sum(_cpu_s(process) for process in members) for name, members in self._groups.items()}
        return Reading(at=time.perf_counter(), cpu_s=cpu_s, machine_s=_machine_s())


def family(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of processes together: resident, and of that what is anonymous, which no file holds and the kernel cannot drop."""

    rss_mib: float
    anonymous_mib: float


def memory_of(pid: int, *, alone: bool = False) -> Memory:
    """Of a process, and of all below it unless `alone`. Pages of files that several have mapped count for each."""
    counted = {"VmRSS": 0, "RssAnon": 0}
    for member in [pid] if alone else family(pid):
        try:
            lines = Path(f"/proc/{member}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile.
        for line in lines:
            name, _, value = line.partition(":")
            if name in counted:
                counted[name] += int(value.split()[0])
    return Memory(rss_mib=counted["VmRSS"] / 1024, anonymous_mib=counted["RssAnon"] / 1024)


def pss_mib(pid: int) -> float:
    """Of a process and all below it, pages that several have mapped shared out among them."""
    counted = 0
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile.
        counted += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return counted / 1024


def rss_mib(pid: int) -> float:
    """Resident memory of a process and all below it."""
    return float(sum(psutil.Process(member).memory_info().rss for member in family(pid)) / MIB)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _machine_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
