"""Packages with plug-ins, written as pip would install them."""

from collections.abc import Mapping
from pathlib import Path

from service.code import plugins
from service.specs.catalog import uploaded

METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: 1.2\nProject-URL: Homepage, https://lab.example\n"


def install(folder: Path, entry_points: str, files: Mapping[str, str], distribution: str = "lab") -> None:
    """Write a distribution with these entry points, one a line, and files by their paths."""
    facts = {"METADATA": METADATA.format(distribution), "entry_points.txt": f"[{plugins.GROUP}]\n{entry_points}\n"}
    facts = {f"{distribution}-1.2.dist-info/{name}": content for name, content in facts.items()}
    for name, content in (facts | dict(files)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    restart()


def restart() -> None:
    """Look up plug-ins and uploaded code anew, as a new process does."""
    plugins.plugins.cache_clear()
    uploaded.forget()
