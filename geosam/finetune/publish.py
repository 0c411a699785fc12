"""What leaves a run: to the hub, and to tensorboard."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

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


def log_to_tensorboard(out: Path) -> None:
    """Write a run's log.jsonl as tensorboard's events."""
    from torch.utils.tensorboard import SummaryWriter

    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    with SummaryWriter(str(out / "tensorboard")) as writer:
        for row in rows:
            figures = {**{k: v for k, v in row.items() if isinstance(v, float)}, **row.get("rows", {})}
            for name, value in figures.items():
                writer.add_scalar(name, value, row["epoch"])
