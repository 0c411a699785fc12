"""River scenes made from a seed, with exact truth: any size, written by strips."""

from geosam.synth.options import SynthOptions
from geosam.synth.scene import RiverScene
from geosam.synth.tile import SynthTile, make_tile
from geosam.synth.write import Written, write_scene

__all__ = ["RiverScene", "SynthOptions", "SynthTile", "Written", "make_tile", "write_scene"]
