"""A second layer under the water: temperature, height, anything in a raster, under each polygon and along the river.

Every raster is read once, by windows, in its own grid and CRS: polygons go to the raster, never the raster to them.
The share of a pixel that a polygon covers is exact, by exactextract.
"""

from geosam.stats.products import RiverStats, river_stats

__all__ = ["RiverStats", "river_stats"]
