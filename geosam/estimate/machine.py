"""How fast this machine runs a model: measured once, in a process of its own, and kept.

Kept figures are used only for the same machine, versions, model file and options; see :func:`identity`. They lie in
``geosam/calibration.json`` in the user's cache (``XDG_CACHE_HOME``, else ``~/.cache``), which may be deleted any time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from geosam import __version__
from geosam.errors import ModelError, RunError
from geosam.models.registry import MODELS, WEIGHTS, hub_cache, unknown
from geosam.options import SegmentOptions

MOST_KEPT = 32
"""Calibrations in the file; the oldest make room."""
COLD_MB = 64
"""A process that read more from the disk than this had to wait for its own libraries, as the next one will not."""
_START = (
    "import sys, time; begun = time.perf_counter(); sys.path.insert(0, sys.argv[1]); import geosam; del sys.path[0]; "
    "from geosam.estimate.probe import main; main(begun)"
)
"""The very geosam that runs here, though another one be installed; all else from where Python finds it."""


@dataclass(frozen=True)
class Calibration:
    """What was measured of a machine with a model."""

    model: str
    """As the user named it."""
    sha256: str
    """Of its weights."""
    device: str
    dtype: str
    tile_px: int
    batch_size: int
    strip_threads: int
    """Threads that make the coarse mask."""
    start_s: float
    """From the start of the process to a first, tiny result, without what its tiles took."""
    tile_s: float
    """A tile that runs: read from memory, prompted, embedded, decoded, blended."""
    dry_tile_s: float
    """A tile that is only looked at."""
    row_s: float
    """What a row of tiles costs besides: its strip is written and synced."""
    vector_tile_s: float
    """Outlines of the water of a tile."""
    vector_s_mpx: float
    """Looking for water in a million pixels that have none, where there is some beside them."""
    memory_mb: int
    """Peak memory of a run on a scene of a few tiles, MB (2^20 bytes)."""
    read_mb: int
    """What the process read from the disk, MB."""
    machine: str = ""
    """Processor and cores."""
    day: str = ""
    """Of the measurement, ISO 8601."""

    @property
    def model_mpx_s(self) -> float:
        """Megapixels of tiles a second, overlaps counted twice."""
        return self.tile_px**2 / 1e6 / self.tile_s


def calibration(
    options: SegmentOptions, *, anew: bool = False, tell: Callable[[str], None] = lambda message: None
) -> Calibration:
    """The calibration of this machine for a run's model, kept from an earlier time or measured now.

    Args:
        options: Of the run; those of its model and its prompts matter.
        anew: Measure also where it is kept.
        tell: Given a line before it is measured, and one if it cannot be kept.

    Raises:
        ModelError: The model is not on this machine, or cannot be loaded.
        RunError: Measuring failed.
    """
    mark = identity(options)
    key = hashlib.sha256(json.dumps(mark, sort_keys=True).encode()).hexdigest()
    kept = _read()
    found = None if anew else _calibration(kept.get(key))
    if found is None:
        tell(f"measuring how fast {options.model.name} runs on this machine, once; some ten seconds with river-tiny.")
        found = measure(options)
        kept = {key: asdict(found), **{old: value for old, value in kept.items() if old != key}}
        _keep(dict(list(kept.items())[:MOST_KEPT]), tell)
    return found


def measure(options: SegmentOptions) -> Calibration:
    """Measure in a fresh process; twice if the first had to fetch its libraries from the disk.

    Raises:
        ModelError: The model cannot be loaded.
        RunError: The process failed.
    """
    found = _probe(options)
    if found["read_mb"] > COLD_MB:
        found = _probe(options)
    return Calibration(**found, machine=f"{_processor()}, {_cores()} cores", day=date.today().isoformat())


def cache_file() -> Path:
    """Where calibrations are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "geosam" / "calibration.json"


def identity(options: SegmentOptions) -> dict[str, Any]:
    """Everything that a calibration depends on, as JSON values: what differs in any of it is measured anew.

    Raises:
        ModelError: The model is not on this machine.
    """
    files = {"points_file", "boxes_file", "mask_file"}
    return {
        "versions": [__version__, importlib.metadata.version("torch"), platform.python_version()],
        "machine": [platform.machine(), _processor(), _cores()],
        "threads": [os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")],
        "gpu": [os.environ.get("CUDA_VISIBLE_DEVICES"), Path("/dev/nvidiactl").exists()],
        "model": [options.model.model_dump(mode="json"), model_mark(options.model.name)],
        "prompts": options.prompts.model_dump(mode="json", exclude=files),
    }


def model_mark(name: str) -> str:
    """SHA-256 of the names, sizes and times of a model's files: another file is another model, unread.

    Raises:
        ModelError: The files are not on this machine.
    """
    folder, files = _model_files(name)
    facts = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([str(folder), facts]).encode()).hexdigest()


def _model_files(name: str) -> tuple[Path, list[Path]]:
    """A model's folder and its files; in the hub's cache the folder is one of several versions."""
    spec = MODELS.get(name)
    path = Path(name).expanduser()
    if spec is not None and spec.family == "tiny":
        return WEIGHTS, [WEIGHTS / spec.source] if spec.is_here() else []
    if spec is None and path.is_file():
        return path.parent, [path]
    if spec is None and path.is_dir():
        folder = path
    else:
        hub_id = spec.source if spec is not None else name
        folder = hub_cache() / f"models--{hub_id.replace('/', '--')}" / "snapshots"
        if spec is None and "/" not in name:
            raise unknown(name)
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    if not files:
        raise ModelError(
            f"{name} is not on this machine yet, so how fast it runs here cannot be measured. "
            "Run it once or fetch it (see geosam models), or leave out --model."
        )
    return folder, files


def _probe(options: SegmentOptions) -> dict[str, Any]:
    """Run :mod:`geosam.estimate.probe` in a process of its own, whose memory is a run's and nothing else's."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _START, str(root)],
        input=options.model_dump_json(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise RunError(f"measuring {options.model.name} failed: {said[0]}. See whether geosam segment runs at all.")
    found: dict[str, Any] = json.loads(lines[-1])
    if "error" in found:
        raise ModelError(found["error"])
    return found


def _read() -> dict[str, Any]:
    try:
        kept = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _calibration(values: object) -> Calibration | None:
    """Kept figures, if they are whole."""
    wanted = {field.name for field in fields(Calibration)}
    return Calibration(**values) if isinstance(values, dict) and set(values) == wanted else None


def _keep(kept: dict[str, Any], tell: Callable[[str], None]) -> None:
    file = cache_file()
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        with suppress(OSError):  # Its folder may be missing.
            part.unlink()
        tell(f"{file} cannot be written ({error.strerror}), so the figures are not kept.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
