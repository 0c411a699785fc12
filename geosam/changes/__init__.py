"""What a river did between two dates: land it took and land it left, how its course moved, bends it cut off.

``change`` takes water polygons or masks of two dates and knows nothing of images. It measures in metres, whatever the
CRS of each, on the courses and reaches that the rivers room finds.
"""

from geosam.changes.product import Change, change

__all__ = ["Change", "change"]
