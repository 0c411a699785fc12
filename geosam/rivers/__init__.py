"""What river people want next: centrelines, widths, reaches, islands, and a mask for their own tools.

``river_products`` takes water polygons, as ``segment`` gives them, and knows nothing of images. It works on the
outlines, not on pixels, so that time and memory follow the length of the banks, and in metres, whatever the CRS.
"""

from geosam.rivers.products import RiverProducts, check_network, river_products, write_layers

__all__ = ["RiverProducts", "check_network", "river_products", "write_layers"]
