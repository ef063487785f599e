"""Running a fault: its lab, its tries, a bystander all the while, and the audit.

Owns: which lab a fault gets, and what is measured of it. Must never: know what
a fault does.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.chaos.bystander import Bystander
from tests.chaos.lab import TRY_HEADER, Fault, Lab, MissingError, Outcome


class Labs:
    """The labs that faults share, and those that a fault has for itself."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tw-chaos-"))
        self._shared: dict[str, Lab] = {}
        self.made = 0

    @contextlib.contextmanager
    def of(self, fault: Fault, shared: Callable[[Path], Lab]) -> Iterator[Lab]:
        """The lab of a fault: its own where it says how to make one."""
        self.made += 1
        folder = self.folder / f"{fault.group}-{self.made}"
        if fault.make is None:
            lab = self._shared.get(fault.group)
            if lab is None:
                lab = self._shared[fault.group] = shared(folder)
                lab.block()
            yield lab
            return
        lab = fault.make(folder)
        try:
            lab.block()
            yield lab
        finally:
            lab.close()

    def close(self) -> None:
        for lab in self._shared.values():
            lab.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def measure(
    labs: Labs,
    fault: Fault,
    shared: Callable[[Path], Lab],
    *,
    tries: int = 1,
    baseline_seconds: float = 0.0,
    raising: bool = False,
) -> Outcome:
    """Do a fault some times, with a bystander calling all the while; then audit.

    ``added_p99_ms`` is the bystander's 99th percentile during the fault less that
    of ``baseline_seconds`` before it.
    """
    missing = [program for program in fault.needs if shutil.which(program) is None]
    if missing:
        raise MissingError(f"{', '.join(missing)} is not installed (tests/setup.sh chaos)")
    outcome = Outcome(fault.row, fault.name, tries)
    with labs.of(fault, shared) as lab:
        lab.begin(f"r{fault.row}")
        name = f"r{fault.row}-by{labs.made}"
        bystander = Bystander(lambda: lab.proxy.port, name, TRY_HEADER)
        if baseline_seconds:
            bystander.watch(0.3)  # warm: connections, caches
        before = bystander.watch(baseline_seconds) if baseline_seconds else None
        bystander.start()
        try:
            for _ in range(tries):
                try:
                    fault.run(lab)
                    outcome.survived += 1
                except MissingError:
                    raise
                except Exception as error:
                    if raising:
                        raise
                    outcome.why.append(str(error).splitlines()[0] if str(error) else repr(error))
        finally:
            bystander.stop()
        lab.answered |= bystander.answered
        outcome.forgotten_blocks = bystander.forgotten
        if before is not None and bystander.seconds:
            added = bystander.p99() - before
            outcome.added_p99_ms = round(added * 1000, 1)
        lab.audit(outcome, fault)
    return outcome
