"""Whether the scene's file is still the one that was opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Watch:
    """Looks at size and time of change of a file; what is no file never changes.

    Once seen to have changed it stays so: what was read before and what would be read now do not belong together.
    """

    source: str
    _first: tuple[int, int] | None = field(init=False, repr=False)
    _seen: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._first = self._stat()

    @property
    def changed(self) -> bool:
        """Whether the file is another one by now, or gone."""
        self._seen = self._seen or self._stat() != self._first
        return self._seen

    @property
    def notice(self) -> str:
        """One line for the page."""
        return (
            f"{Path(self.source).name} has changed on disk since it was opened, so no new prompts are taken. "
            "Your edits are kept: save them, then open the scene again."
        )

    def _stat(self) -> tuple[int, int] | None:
        try:
            stat = Path(self.source).stat()
        except (OSError, ValueError):
            return None
        return stat.st_size, stat.st_mtime_ns
