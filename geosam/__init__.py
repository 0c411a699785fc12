"""geosam: river polygons from orthoimages."""

__version__ = "0.1.0"
