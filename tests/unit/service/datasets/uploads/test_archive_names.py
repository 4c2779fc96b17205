"""Names in zip archives: their encoding, folders that are no classes, and files that are packed twice."""

from __future__ import annotations

import struct
import unicodedata
import zlib
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest

from service.datasets.uploads.checks import warnings_of
from service.datasets.uploads.reading import Form, read
from service.datasets.uploads.records import Records, rows_for_test
from tests.unit.service.datasets.uploads.errors import LIMIT, error_of
from tests.unit.service.datasets.uploads.files import folders, image, npz, with_member

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


class RawName(ZipInfo):
    """A member whose name has any bytes, without the flag for UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, self.flag_bits & ~0x800


def with_raw_names(path: Path, names: list[bytes], extra: bytes = b"") -> Path:
    with ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            member = RawName(f"{number}")
            member.raw, member.extra = name, extra
            archive.writestr(member, image(shade=number))
    return path


def read_zip(path: Path) -> Records:
    return read(path, Form("zip"), LIMIT)


def packed(path: Path, names: list[str], top: str = "") -> Path:
    with ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"{top}{name}", image(shade=number))
    return path


class TestEncoding:
    def test_composes_letters(self, tmp_path: Path) -> None:
        """The folders differ only in the form of a letter; files of one name in both are different files."""
        names = [f"{name}/{number}.png" for number in range(6) for name in (NFC, NFD, "dog")]
        records = read_zip(packed(tmp_path / "a.zip", names))
        assert records.classes == [NFC, "dog"]
        assert (records.labels == 0).sum() == 12

    def test_reads_utf8_without_flag(self, tmp_path: Path) -> None:
        names = [f"{name}/{number}.png".encode() for number in range(5) for name in ("ñandú", "猫")]
        records = read_zip(with_raw_names(tmp_path / "a.zip", names))
        assert (records.classes, records.warnings) == (["ñandú", "猫"], [])

    def test_warns_of_unknown_encoding(self, tmp_path: Path) -> None:
        names = [f"{name}/{number}.png".encode("gbk") for number in range(5) for name in ("猫", "狗")]
        records = read_zip(with_raw_names(tmp_path / "a.zip", names))  # the first is valid UTF-8 by chance: è
        (warning,) = records.warnings
        assert warning.startswith(
            "The archive does not state the encoding of its file names; 10 names read as code page"
        )
        assert "'├¿/0.png'" in warning
        assert records.classes == ["├¿", "╣╖"]

    def test_reads_unicode_path(self, tmp_path: Path) -> None:
        with ZipFile(tmp_path / "a.zip", "w") as archive:
            for number in range(10):
                name = ("猫" if number % 2 else "dog") + f"/{number}.png"
                member = RawName(f"{number}")
                member.raw = name.encode("gbk")
                content = b"\1" + struct.pack("<I", zlib.crc32(member.raw)) + name.encode()
                member.extra = struct.pack("<HH", 0x7075, len(content)) + content
                archive.writestr(member, image(shade=number))
        records = read_zip(tmp_path / "a.zip")
        assert (records.classes, records.warnings) == (["dog", "猫"], [])

    def test_reads_backslashes_of_windows(self, tmp_path: Path) -> None:
        with ZipFile(tmp_path / "a.zip", "w") as archive:
            for number in range(10):
                member = ZipInfo(f"{'cat' if number % 2 else 'dog'}\\{number}.png")
                member.create_system = 0
                archive.writestr(member, image(shade=number))
        assert read_zip(tmp_path / "a.zip").classes == ["cat", "dog"]

    def test_accepts_joiners_and_spaces_of_other_scripts(self, tmp_path: Path) -> None:
        classes = ["می\u200cخواهم", "क\u094d\u200dष", "New\u00a0York", "日\u3000本"]
        names = [f"{name}/{number}.png" for number in range(3) for name in classes]
        assert sorted(read_zip(packed(tmp_path / "a.zip", names)).classes) == sorted(classes)

    @pytest.mark.parametrize("sign", ["\u202e", "\u2066", "\x7f", "\x85", "\u2028", "\ufeff"])
    def test_rejects_control_characters(self, tmp_path: Path, sign: str) -> None:
        names = [f"{name}/{number}.png" for number in range(5) for name in (f"a{sign}b", "dog")]
        assert "unprintable characters" in error_of(packed(tmp_path / "a.zip", names), Form("zip"))


class TestPacking:
    def test_member_packed_twice_counts_once(self, tmp_path: Path) -> None:
        file = folders(tmp_path / "a.zip")
        with pytest.warns(UserWarning, match="Duplicate name"):
            with_member(file, "daisy/0.png", image(shade=0))
        with_member(file, "./daisy/1.png", image(shade=1))
        with_member(file, "daisy//2.png", image(shade=2))
        assert len(read_zip(file).labels) == 12

    def test_rejects_two_files_of_one_name(self, tmp_path: Path) -> None:
        file = with_member(folders(tmp_path / "a.zip"), "./daisy/0.png", image(shade=99))
        message = "'daisy/0.png' is in the archive twice, with different contents; pack each file once"
        assert error_of(file, Form("zip")) == message

    def test_rejects_array_packed_twice(self, tmp_path: Path) -> None:
        file = npz(tmp_path / "a.npz", x=[[1.0]] * 12, y=[0, 1] * 6)
        assert "'x.npy' is in the archive twice" in error_of(with_member(file, "./x.npy", b"x"), Form("npz"))

    @pytest.mark.parametrize(
        "name",
        [
            *("daisy/Icon\r", "ICON\r", "daisy/THUMBS.DB", "Desktop.INI", "__macosx/daisy/._0.png", "daisy/.DS_STORE"),
            *("@eaDir/daisy/0.png", "$RECYCLE.BIN/x/0.png", "System Volume Information/x/0.png", "lost+found/x/0.png"),
        ],
    )
    def test_leaves_out_what_systems_add(self, tmp_path: Path, name: str) -> None:
        assert len(read_zip(with_member(folders(tmp_path / "a.zip"), name, b"x")).labels) == 12


class TestParts:
    CLASSES = ("cat", "dog")

    def names(self, **parts: int) -> list[str]:
        return [
            f"{part}/{name}/{row}.png" for part, rows in parts.items() for name in self.CLASSES for row in range(rows)
        ]

    @pytest.mark.parametrize("top", ["", "flowers/"])
    def test_reads_folders_train_and_test(self, tmp_path: Path, top: str) -> None:
        records = read_zip(packed(tmp_path / "a.zip", self.names(train=6, test=2), top))
        assert (records.classes, len(records.labels)) == (["cat", "dog"], 16)
        assert records.is_test is not None
        assert records.labels[records.is_test].tolist() == [0, 0, 1, 1]
        assert records.notes == ["The test folder is the test part."]

    def test_validation_folder_is_test_part_if_there_is_no_other(self, tmp_path: Path) -> None:
        records = read_zip(packed(tmp_path / "a.zip", self.names(Train=6, VAL=2)))
        assert records.is_test is not None
        assert records.is_test.sum() == 4
        assert "validation folder is the test part" in records.notes[0]

    def test_validation_folder_joins_training_part(self, tmp_path: Path) -> None:
        records = read_zip(packed(tmp_path / "a.zip", self.names(training=6, validation=3, test=2)))
        assert records.is_test is not None
        assert (records.is_test.sum(), (~records.is_test).sum()) == (4, 18)
        assert "images of the validation folder are training records" in records.notes[1]

    def test_warns_of_class_without_test_images(self, tmp_path: Path) -> None:
        names = [name for name in self.names(train=6, test=2) if not name.startswith("test/dog")]
        records = read_zip(packed(tmp_path / "a.zip", names))
        assert "The test part has no records of 'dog'." in warnings_of(records, rows_for_test(records))

    def test_only_a_train_folder_is_a_common_folder(self, tmp_path: Path) -> None:
        records = read_zip(packed(tmp_path / "a.zip", self.names(train=6)))
        assert (records.classes, records.is_test, records.notes) == (["cat", "dog"], None, [])

    @pytest.mark.parametrize("parts", [("train", "test"), ("Train", "val"), ("training", "validation", "testing")])
    def test_rejects_parts_without_class_folders(self, tmp_path: Path, parts: tuple[str, ...]) -> None:
        names = [f"{part}/{row}.png" for part in parts for row in range(6)]
        message = error_of(packed(tmp_path / "a.zip", names), Form("zip"))
        assert message.startswith("the folders 'train' and 'test' (or 'val') contain images and no class folders")

    def test_rejects_test_folder_without_training_folder(self, tmp_path: Path) -> None:
        names = self.names(test=3, val=3)
        assert "has no folder 'train'" in error_of(packed(tmp_path / "a.zip", names), Form("zip"))

    def test_class_named_like_a_part_is_a_class(self, tmp_path: Path) -> None:
        names = [f"{name}/{row}.png" for name in ("train", "bus") for row in range(6)]
        assert read_zip(packed(tmp_path / "a.zip", names)).classes == ["bus", "train"]
