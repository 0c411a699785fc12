"""The errors geosam raises on purpose.

Every one is a :class:`GeosamError` and also the builtin a Python reader expects, so that
``except ValueError`` and ``except GeosamError`` both work. The message is one line: what is
wrong, what was found, what to do. The command line prints it and exits with code 2.
"""


class GeosamError(Exception):
    """Base of every error geosam raises on purpose."""


class SceneError(GeosamError, ValueError):
    """A raster that cannot be used as it is: missing, truncated, no CRS, no valid pixel, unknown bands."""


class OptionsError(GeosamError, ValueError):
    """An option that is out of range, unknown, or contradicts another."""


class ModelError(GeosamError, ValueError):
    """A model that cannot be loaded: unknown name, weights that do not fit, pickled code."""


class DatasetError(GeosamError, ValueError):
    """Training or evaluation data that cannot be used as it is."""


class OutputError(GeosamError, OSError):
    """A result that cannot be written: folder missing, file exists, disk full."""


class RunError(GeosamError, RuntimeError):
    """A run that started and could not finish; exit code 1."""
