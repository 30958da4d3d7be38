"""What the benchmarks share: each run is a fresh process, in turns, and figures of a row come from the same rounds."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CACHE = Path(tempfile.gettempdir()) / "rastervision-bench"


@dataclass(frozen=True)
class Family:
    """One kind of work at several sizes.

    Attributes:
        sizes: What grows; three or more, so that the growth can be told.
        ours: Does the work of a size through the public API, with `Clock.timed` around what counts.
        limit: The same work written by hand on rasterio, numpy, shapely and torch.
        amount: Size -> units of work.
        unit: Name of a unit.
        least: What `ours` must reach of the speed of `limit`.
    """

    sizes: tuple[int, ...]
    ours: Callable[[Clock, int], object]
    limit: Callable[[Clock, int], object]
    amount: Callable[[int], float]
    unit: str
    least: float


@dataclass
class Clock:
    """Seconds, CPU seconds and peak memory of what is done in `timed`."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    base_mb: float = field(default=0.0)
    peak_mb: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        self.base_mb = self.base_mb or _status_mb("VmRSS")
        _reset_peak()
        cpu, start = _cpu_s(), time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start
        self.cpu_s += _cpu_s() - cpu
        self.peak_mb = max(self.peak_mb, _status_mb("VmHWM"))


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _status_mb(key: str) -> float:
    status = Path("/proc/self/status")
    return int(status.read_text().split(f"{key}:")[1].split()[0]) / 1024 if status.exists() else math.nan


def _reset_peak() -> None:
    if os.path.exists("/proc/self/clear_refs"):
        Path("/proc/self/clear_refs").write_text("5")


def warm(path: Path) -> Path:
    """Read a file once, so that no run waits for the disk."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
    return path


def main(description: str | None, families: dict[str, Family]) -> None:
    """Run the families named on the command line, and print a table."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(families))
    parser.add_argument("--python", action="append", default=[], help="also measure `ours` in this interpreter")
    parser.add_argument("--sizes", type=int, nargs="+", help="instead of the sizes of the family")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    # not by `choices`, with which no name at all is an error in some releases of Python
    if unknown := set(args.families) - set(families):
        parser.error(f"there is no {', '.join(sorted(unknown))}. Use some of: {', '.join(families)}")
    args.families = args.families or list(families)
    if args.one:
        _run_one(families[args.families[0]], *args.one)
        return
    runs = [("limit", sys.executable), ("ours", sys.executable), *(("ours", python) for python in args.python)]
    titles = " | ".join(_title(kind, python) for kind, python in runs)
    print(f"work | size | {titles} | ours / limit (least), in CPU time")
    missed = []
    for name in args.families:
        family = families[name]
        seconds: dict[int, list[float]] = {i: [] for i in range(len(runs))}
        for size in args.sizes or family.sizes:
            rounds = _measure(name, size, runs, args.repeat)
            cells = []
            for i, results in enumerate(zip(*rounds, strict=True)):
                taken = statistics.median(r["seconds"] for r in results)
                extra = statistics.median(r["extra_mb"] for r in results)
                seconds[i].append(taken)
                cells.append(f"{family.amount(size) / taken:.4g} {family.unit}/s, +{extra:.0f} MB")
            ratio = statistics.median(r[0]["seconds"] / r[1]["seconds"] for r in rounds)
            cpu = statistics.median(r[0]["cpu_s"] / r[1]["cpu_s"] for r in rounds)
            same = all(_alike(r["check"], rounds[0][0]["check"]) for r in rounds[0])
            note = "" if same else " | RESULTS DIFFER: " + " ".join(str(r["check"]) for r in rounds[0])
            ratios = f"{ratio:.2f} ({family.least}), {cpu:.2f}"
            print(f"{name} | {size} | {' | '.join(cells)} | {ratios}{note}", flush=True)
            if ratio < family.least:
                missed.append(f"{name} {size}")
        sizes = args.sizes or family.sizes
        growth = [" ".join(_exponents(sizes, seconds[i])) for i in range(len(runs))]
        print(f"{name} | exponent of time | " + " | ".join(growth) + " |", flush=True)
    if missed:
        print("below what they must reach: " + ", ".join(missed))


def _alike(a: Any, b: Any) -> bool:
    """Whether results differ by no more than rounding does: 2 in 1,000."""
    pairs = zip(*(v if isinstance(v, list) else [v] for v in (a, b)), strict=True)
    return all(math.isclose(x, y, rel_tol=2e-3) for x, y in pairs)


def _title(kind: str, python: str) -> str:
    return kind if python == sys.executable else f"{kind} in {python}"


def _measure(name: str, size: int, runs: Sequence[tuple[str, str]], repeat: int) -> list[list[dict[str, Any]]]:
    """Return rounds of one result per run; every other round goes backwards."""
    rounds = []
    for i in range(repeat):
        order = list(range(len(runs)))
        found: dict[int, dict[str, Any]] = {}
        for j in order if i % 2 == 0 else reversed(order):
            kind, python = runs[j]
            command = [python, "-W", "ignore", sys.argv[0], name, "--one", kind, str(size)]
            env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "NO_ALBUMENTATIONS_UPDATE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=env)
            if done.returncode:
                sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            found[j] = json.loads(done.stdout.splitlines()[-1])
        rounds.append([found[j] for j in order])
    return rounds


def _run_one(family: Family, kind: str, size: str) -> None:
    clock = Clock()
    check = getattr(family, kind)(clock, int(size))
    extra = round(clock.peak_mb - clock.base_mb, 1)
    print(json.dumps({"seconds": clock.seconds, "cpu_s": clock.cpu_s, "extra_mb": extra, "check": check}))


def _exponents(sizes: Sequence[int], seconds: Sequence[float]) -> list[str]:
    pairs = zip(sizes, sizes[1:], seconds, seconds[1:], strict=False)
    return [f"{math.log(t1 / t0) / math.log(n1 / n0):.2f}" for n0, n1, t0, t1 in pairs]
