"""Measure speed and memory, each in a process of its own, and write the table of benchmarks/README.md.

    python benchmarks/run.py                       the published table: sides of 5,000, 20,000 and 50,000 px
    python benchmarks/run.py --sizes 1000 2000 --dry-run

Needs about 15 GB of disk for the scenes, which stay in runs/benchmarks, and an hour or two.
Nothing of geosam is imported here: a child's memory starts from its parent's.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
JOBS = {"model-free": "model_free.py", "whole job": "whole_job.py"}
START, END = "<!-- results -->", "<!-- /results -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 20_000, 50_000], help="sides in pixels")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--dry-run", action="store_true", help="print the table, leave README.md alone")
    asked = parser.parse_args()
    results = [measure(job, size) for job in asked.jobs for size in asked.sizes]
    text = f"{machine()}\n\n{table(results)}\n\n{flatness(results)}"
    print(text)
    if not asked.dry_run:
        write(text)


def measure(job: str, size: int) -> dict[str, object]:
    """Run one job on one scene and read the last line it prints."""
    print(f"{job}, {size:,} px ...", file=sys.stderr)
    command = [sys.executable, str(HERE / JOBS[job]), "--size", str(size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(results: list[dict[str, object]]) -> str:
    rows = ["| job | scene, px | seconds | Mpx/s | peak memory, MiB | seconds by stage |", "|---|---|---|---|---|---|"]
    for r in results:
        stages = ", ".join(f"{name} {seconds:g}" for name, seconds in dict(r["stages"]).items())  # type: ignore[call-overload]
        side = f"{r['size']:,}"
        rows.append(
            f"| {r['job']} | {side} × {side} | {r['seconds']:g} | {r['mpx_s']:g} | {r['peak_mib']:,} | {stages} |"
        )
    return "\n".join(rows)


def flatness(results: list[dict[str, object]]) -> str:
    """Peak memory of the largest scene over that of the smallest, job by job."""
    lines = []
    for job in dict.fromkeys(str(r["job"]) for r in results):
        peaks = {int(str(r["size"])): float(str(r["peak_mib"])) for r in results if r["job"] == job}
        small, large = min(peaks), max(peaks)
        ratio = peaks[large] / peaks[small]
        lines.append(f"- {job}: peak memory at {large:,} px is {ratio:.2f} times that at {small:,} px.")
    return "\n".join(lines)


def machine() -> str:
    """Date, machine and versions, in one line."""
    names = ("geosam-rivers", "torch", "rasterio", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    where = f"{processor()}, {cores} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    return f"{date.today().isoformat()}: {where}; {versions}."


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(text: str) -> None:
    page = HERE / "README.md"
    old = page.read_text(encoding="utf-8")
    head, rest = old.split(START, 1)
    tail = rest.split(END, 1)[1]
    page.write_text(f"{head}{START}\n{text}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
