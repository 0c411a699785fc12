"""What leaves a run: to the hub, and to tensorboard."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

from geosam.errors import OptionsError, RunError


def check_hub(repo: str) -> None:
    """Refuse what the hub would refuse, before hours of work; without asking it.

    Raises:
        OptionsError: The id is not of the form owner/name, the hub is switched off, or nobody is logged in.
    """
    from huggingface_hub import constants, get_token

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", repo):
        raise OptionsError(f"--push-to-hub {repo!r} is not of the form owner/name.")
    if constants.HF_HUB_OFFLINE:
        raise OptionsError(
            f"--push-to-hub {repo} needs the hub, and HF_HUB_OFFLINE is set. Unset it, or leave --push-to-hub away and "
            "upload the folder best later."
        )
    if get_token() is None:
        raise OptionsError(f"--push-to-hub {repo} needs an account, and nobody is logged in. Give: hf auth login")


def push(folder: Path, repo: str) -> str:
    """Upload a checkpoint's folder as a model of the hub.

    Returns:
        A line that says where it is.

    Raises:
        RunError: The hub refused or could not be reached; the weights are kept.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder)
    except Exception as error:  # The client raises OSError, ValueError and its HTTP library's own.
        raise RunError(
            f"{repo} could not be uploaded ({type(error).__name__}: {' '.join(str(error).split())[:120]}). The weights "
            f"are kept in {folder}; log in with `hf auth login` and give `hf upload {repo} {folder}`."
        ) from None
    return f"{folder}: uploaded to {repo}"


def check_tensorboard() -> None:
    """Refuse before hours of work what could not be written after them.

    Raises:
        OptionsError: tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise OptionsError("--tensorboard needs the package tensorboard. Install it with: pip install tensorboard")


class Board:
    """A run's figures as tensorboard's events, written as they come."""

    def __init__(self, folder: Path) -> None:
        """Begin anew: a run that goes on is told its earlier epochs once more."""
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder))

    def add(self, row: dict[str, Any]) -> None:
        """Every figure of a line of the log, and its scores by row."""
        figures = {**{name: value for name, value in row.items() if isinstance(value, float)}, **row.get("rows", {})}
        for name, value in figures.items():
            self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()
