"""The same run on many machines, with dask.distributed: blocks of a scene, or whole scenes, as tasks.

>>> with geosam.cluster.local(4) as machines:
...     geosam.segment("ortho.tif", out="rivers.gpkg", machines=machines)

The process that asks makes the coarse mask and, at the end, the polygons. A block is a range of the
mosaic's strips; a worker also computes the tile row above that reaches into the first, so that blocks need
nothing of each other and every strip has the bytes that one machine gives it. Strips go to storage that all
machines share, each written whole or not at all, and so are found again after any kind of end.

Files: ``starting`` (how to come by workers), ``workers`` (what a run asks of them), ``farm`` (tasks, and what
becomes of them where a worker fails), ``parcel`` (what travels), ``blocks`` and ``tasks`` (what a worker does),
``card`` (its model), ``storage`` (what machines share).
"""

from geosam.cluster.starting import connected, local, machines

__all__ = ["connected", "local", "machines"]
