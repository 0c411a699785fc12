"""What an option's text may be: each takes what was typed and gives back what the stages read."""

from __future__ import annotations

import math

import click


def gsd(text: str | float) -> str | float:
    """``native``, ``auto`` or a length in metres above zero."""
    metres = text if text in ("native", "auto") else _number(text)
    if metres is None or (isinstance(metres, float) and not 0 < metres < math.inf):
        raise click.BadParameter(f"{text!r} is neither native, auto nor a length in metres above 0, such as 0.5.")
    return metres


def threshold(text: str | float) -> float | None:
    """A number, or ``auto``: None, which the stages read as "find it yourself"."""
    if text == "auto":
        return None
    number = _number(text)
    if number is None or not math.isfinite(number):
        raise click.BadParameter(f"{text!r} is neither auto nor a number, such as 0.5.")
    return number


def batch_size(text: str | int) -> int | None:
    """A number of tiles from 1, or ``auto``: None, which the stages read as "choose for the device"."""
    if text == "auto":
        return None
    if not (str(text).isascii() and str(text).isdigit() and int(text) >= 1):
        raise click.BadParameter(f"{text!r} is neither auto nor a number of tiles from 1, such as 4.")
    return int(text)


def magnify(text: str | int) -> int | None:
    """1, 2 or 4, or ``auto``: None, the model's own."""
    if text == "auto":
        return None
    if str(text) not in ("1", "2", "4"):
        raise click.BadParameter(f"{text!r} is neither auto nor 1, 2 or 4.")
    return int(text)


def _number(text: str | float) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
