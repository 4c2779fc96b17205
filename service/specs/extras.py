"""How to install the packages that an extra of kotrain contains."""

from __future__ import annotations

from service.specs.text import listed


def install_hint(*extras: str) -> str:
    """The remedy for missing packages: install the extras of kotrain that contain them."""
    names = listed([f"`{extra}`" for extra in extras])
    plural = "s" if len(extras) > 1 else ""
    return f"install kotrain's extra{plural} {names}: run pip install '.[{','.join(extras)}]' in kotrain's checkout"
