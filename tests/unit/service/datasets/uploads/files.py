"""Valid and hostile files for uploads."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

CLASSES = ("daisy", "rose", "tulip")


def npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def write_file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv_of(rows: int = 12, header: str = "a,b,label") -> str:
    return "\n".join([header, *(f"{row},{row / 2},{CLASSES[row % 3]}" for row in range(rows))]) + "\n"


def jsonl_of(rows: int = 12) -> str:
    return "".join(json.dumps({"text": f"text {row}", "label": CLASSES[row % 3]}) + "\n" for row in range(rows))


def parquet(path: Path, **columns: Any) -> Path:
    pa.parquet.write_table(pa.table(columns), path)
    return path


def image(size: tuple[int, int] = (8, 6), mode: str = "RGB", file_format: str = "PNG", shade: int = 0) -> bytes:
    file = io.BytesIO()
    plain = Image.new("RGB", size, (shade % 256, 255 - shade % 256, 7))
    (plain if mode == "RGB" else plain.convert(mode)).save(file, file_format)
    return file.getvalue()


def folders(path: Path, per_class: int = 4, top: str = "", **options: Any) -> Path:
    """A zip archive of class folders, each image of a different shade."""
    with ZipFile(path, "w") as archive:
        for number, name in enumerate(CLASSES):
            for row in range(per_class):
                archive.writestr(f"{top}{name}/{row}.png", image(shade=80 * number + row, **options))
    return path


def with_member(path: Path, name: str, content: bytes = b"", attributes: int = 0, **options: Any) -> Path:
    """Add a member to the archive."""
    info = ZipInfo(name)
    info.external_attr = attributes << 16
    info.compress_type = options.get("compress_type", ZIP_DEFLATED)
    with ZipFile(path, "a") as archive:
        archive.writestr(info, content)
    return path


def npz_with_header(path: Path, shape: str, dtype: str, content: bytes = b"") -> Path:
    """An npz file whose array `x` has a forged header."""
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
    y = io.BytesIO()
    np.save(y, np.zeros(12, int))
    with ZipFile(path, "w") as archive:
        archive.writestr("x.npy", raw)
        archive.writestr("y.npy", y.getvalue())
    return path
