"""How QGIS shows a queue: colours by status, a list to choose the status from, and the date of every edit."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

ACCEPTED, TO_CHECK, CORRECTED, REJECTED = "accepted", "to_check", "corrected", "rejected"
STATUSES = (ACCEPTED, TO_CHECK, CORRECTED, REJECTED)
# Told apart without seeing red and green (after Wong 2011, doi:10.1038/nmeth.1618).
_COLOURS = {ACCEPTED: "0,114,178", TO_CHECK: "230,159,0", CORRECTED: "0,158,115", REJECTED: "120,120,120"}


def scenes_style() -> str:
    """QML of the footprints: an outline by status, ``status`` as a list of values, ``edited`` filled in by QGIS."""
    categories = "".join(
        f'<category value="{status}" label="{status}" symbol="{number}" render="true"/>'
        for number, status in enumerate(STATUSES)
    )
    symbols = "".join(
        _symbol(str(number), "0,0,0,0", f"{_COLOURS[status]},255", "0.8") for number, status in enumerate(STATUSES)
    )
    values = "".join(
        f'<Option type="Map"><Option name="{status}" value="{status}" type="QString"/></Option>' for status in STATUSES
    )
    widget = (
        '<field name="status"><editWidget type="ValueMap"><config><Option type="Map">'
        f'<Option name="map" type="List">{values}</Option></Option></config></editWidget></field>'
    )
    return _qml(
        f'<renderer-v2 type="categorizedSymbol" attr="status"><categories>{categories}</categories>'
        f"<symbols>{symbols}</symbols></renderer-v2>"
        f"<fieldConfiguration>{widget}</fieldConfiguration><defaults>{_stamp()}</defaults>"
    )


def water_style() -> str:
    """QML of the polygons to correct; ``edited`` is filled in by QGIS."""
    symbol = _symbol("0", "31,155,255,60", "255,255,255,255", "0.4")
    return _qml(
        f'<renderer-v2 type="singleSymbol"><symbols>{symbol}</symbols></renderer-v2><defaults>{_stamp()}</defaults>'
    )


def _stamp() -> str:
    expression = quoteattr("format_date(now(), 'yyyy-MM-dd')")
    return f'<default field="edited" applyOnUpdate="1" expression={expression}/>'


def _symbol(name: str, fill: str, outline: str, width: str) -> str:
    options = {"color": fill, "outline_color": outline, "outline_width": width, "outline_width_unit": "MM"}
    options |= {"style": "solid", "outline_style": "solid"}
    rows = "".join(f'<Option name="{key}" value="{value}" type="QString"/>' for key, value in options.items())
    return (
        f'<symbol type="fill" name="{name}" alpha="1"><layer class="SimpleFill" enabled="1">'
        f'<Option type="Map">{rows}</Option></layer></symbol>'
    )


def _qml(inside: str) -> str:
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'><qgis version=\"3.28\">{inside}</qgis>"
