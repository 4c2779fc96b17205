"""The folder that uploaded code may write to."""

import os

from workers import own_folder


def test_clear_deletes_all_but_the_checkpoints(tmp_path):
    folder = tmp_path / "1"
    deep = folder / "a/b\nc"
    deep.mkdir(parents=True)
    (folder / "5.pt").write_text("kept")
    (folder / "6.pt").write_text("no checkpoint")
    (folder / "-rf").write_text("a name")
    (folder / "link").symlink_to(tmp_path)
    for number in range(3000):
        (deep / f"{number} of a file with a long name {'x' * 100}").touch()
    (folder / "a").chmod(0)
    own_folder.clear(folder, {"5.pt"})
    assert [path.name for path in folder.iterdir()] == ["5.pt"]
    own_folder.clear(folder, ())
    assert not folder.exists()
    own_folder.clear(folder, ())


def test_excess_counts_files_and_bytes(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(os.urandom(100_000))
    assert own_folder.excess(tmp_path) is None
    assert "is left on the disk" in own_folder.excess(tmp_path, min_free_bytes=2**60)
    assert own_folder.excess(tmp_path, max_bytes=50_000) == "it wrote more than 48.8 KiB"
    monkeypatch.setattr(own_folder, "MAX_FILES", 1)
    assert own_folder.excess(tmp_path) == "it wrote more than 1 files"
    assert own_folder.excess(tmp_path / "gone") is None
