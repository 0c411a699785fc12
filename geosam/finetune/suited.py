"""The options that hang on the model: what is left open is what suits the one that is tuned."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from geosam.finetune.options import TuneOptions, Views
from geosam.models.network import TinySam


@dataclass(frozen=True)
class Suited:
    """Options without a default of their own; see :class:`~geosam.finetune.options.TuneOptions`."""

    learning_rate: float
    views: Views

    def told(self, left_open: tuple[str, ...], name: str) -> str:
        """A line for a person about what was chosen for the model ``name``."""
        parts = {"learning_rate": f"--learning-rate {self.learning_rate:g}", "views": f"--views {self.views}"}
        return f"{' and '.join(parts[option] for option in left_open)}, as suits {name}"


SAM = Suited(learning_rate=2e-4, views=1)
"""Its decoder knows masks from eleven million images and wants to be moved a little."""
SMALL = Suited(learning_rate=3e-4, views=8)
"""river-tiny's tiles are cheap to encode, so that it can be shown all views. At 1e-3 its decoder no longer answered
points after the first epoch, and did not come back in ten (NAIP, 144 tiles)."""


def suited(options: TuneOptions, model: Any) -> tuple[TuneOptions, Suited, str | None]:
    """Fill in what was left open.

    Args:
        options: As given.
        model: The adapter of the model to be tuned.

    Returns:
        The options as they are run, the part of them that hangs on the model, and a line that says what was filled
        in; None if nothing was.
    """
    given = {name: getattr(options, name) for name in asdict(SAM)}
    left_open = tuple(name for name, value in given.items() if value is None)
    chosen = replace(_of(model), **{name: value for name, value in given.items() if value is not None})
    return options.model_copy(update=asdict(chosen)), chosen, chosen.told(left_open, model.name) if left_open else None


def _of(model: Any) -> Suited:
    """MobileSAM runs on the same network and is a SAM: its decoder is SAM's own."""
    network = model.module
    return SMALL if isinstance(network, TinySam) and network.config.skips else SAM
