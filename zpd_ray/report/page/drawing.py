"""Vega-Lite specifications -> SVG that stands in the page, by vl-convert; no browser and no network."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

VERSION = "5.20"  # of Vega-Lite, among those that vl-convert brings along
_NAMES = re.compile(r'(id="|url\(#|href="#)(clip|gradient)')


class Drawing:
    """Draws; two drawings of a page do not share the names of what they define."""

    def __init__(self) -> None:
        """Loads what draws: 80 MB, and no sooner than there is something to draw."""
        import vl_convert

        self._convert, self._numbers = vl_convert, count()

    def svg(self, spec: dict[str, Any]) -> str:
        """One plot; its texts are escaped."""
        drawn: str = self._convert.vegalite_to_svg(spec, vl_version=VERSION)
        own = f"d{next(self._numbers)}-"
        return _NAMES.sub(lambda found: f"{found[1]}{own}{found[2]}", drawn)
