"""The folder of a run: nothing in it is written over unasked, by the verb or by the functions."""

from __future__ import annotations

from pathlib import Path

from geosam.errors import OutputError

_STATE, _LOG = "state.pt", "log.jsonl"


def check_holds_no_run(out: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder in which a run has been, unless it is to go on or to give way.

    Raises:
        OutputError: It holds a run already.
    """
    if (out / _STATE).exists() and not (resume or overwrite):
        raise OutputError(f"{out} holds a run already. Give --resume to go on, --overwrite to begin again.")


def make_run_folder(out: Path, resume: bool) -> None:
    """Make it if it is missing, without the state and the log of an earlier run unless that one goes on.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not resume:
            for name in (_LOG, _STATE):
                (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror or error}). Choose another --out.") from None
