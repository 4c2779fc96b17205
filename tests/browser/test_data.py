"""Uploaded data sets: upload, train and delete, with a real worker."""

import io
import re
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.visitor import Stage, Visitor

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """120 rows of two classes that one column separates."""
    rows = [f"{number % 2 + number / 1000},{number},{'ab'[number % 2]}" for number in range(120)]
    path = tmp_path / "Two Sorts.csv"
    path.write_text("\n".join(["size,order,label", *rows]))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """30 bright and 30 dark images."""
    path = tmp_path / "shades.zip"
    with ZipFile(path, "w") as archive:
        for number in range(60):
            file = io.BytesIO()
            Image.new("L", (8, 8), 40 + number if number % 2 else 200 - number).save(file, "PNG")
            archive.writestr(f"shades/{'dark' if number % 2 else 'bright'}/{number}.png", file.getvalue())
    return path


def upload(page: Page, path: Path) -> None:
    page.get_by_label("Select a file").set_input_files(path)
    page.get_by_role("button", name="Upload").click()


def test_uploads_trains_on_and_deletes_table(visitor: Visitor, stage: Stage, table: Path) -> None:
    page = visitor.open("/data")
    expect(page.get_by_text("No uploaded data sets yet")).to_be_visible()
    page.get_by_label("Select a file").set_input_files(table)
    expect(page.get_by_label("Name", exact=True)).to_have_value("two-sorts")
    expect(page.get_by_label("Format", exact=True)).to_have_value("csv")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("tables/two-sorts is ready: 120 records.")).to_be_visible()
    details = page.get_by_role("region", name="tables/two-sorts", exact=True)
    expect(details.get_by_role("table").first.locator("tbody tr")).to_have_count(2)
    expect(details.get_by_role("region", name="Sample records")).to_contain_text("a")

    details.get_by_role("link", name="Train on it").click()
    expect(page.get_by_label("Data set", exact=True)).to_have_value("tables/two-sorts")
    page.get_by_label("Budget", exact=True).fill("2")
    expect(page.get_by_role("heading", name="Resolved spec")).to_be_visible()
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("h1")).to_contain_text("on tables/two-sorts, mlp")
    expect(page.locator(".head .chip")).to_contain_text("succeeded", timeout=60_000)

    budget = {"steps": 10_000_000}
    job_id = stage.lab.submit({"dataset": "tables/two-sorts", "model": "mlp", "optimizer": "adam", "budget": budget})
    visitor.allow_status(409, "/v1/datasets/")
    page.get_by_role("link", name="Data sets").click()
    page.get_by_role("link", name="tables/two-sorts").click()
    expect(page).to_have_url(re.compile("show=tables"))
    delete(page)
    expect(page.get_by_text(re.compile("is used by . unfinished job"))).to_be_visible()
    stage.client.post(f"/v1/jobs/{job_id}/cancel")
    stage.lab.ended(job_id)
    delete(page)
    expect(page.get_by_text("tables/two-sorts deleted.")).to_be_visible()
    expect(page.get_by_text("No uploaded data sets yet")).to_be_visible()


def delete(page: Page) -> None:
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Click again to delete").click()


@pytest.fixture
def slow(visitor: Visitor) -> Visitor:
    """A visitor who uploads 300 kB per second."""
    session = visitor.context.new_cdp_session(visitor.page)
    session.send("Network.enable")
    session.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 300_000},
    )
    return visitor


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A table of 1 MB."""
    path = tmp_path / "large.csv"
    path.write_text("a,label\n" + "".join(f"{number},{'xy'[number % 2]}\n" for number in range(120_000)))
    return path


class TestUpload:
    def test_shows_progress_and_cancels(self, slow: Visitor, stage: Stage, large: Path) -> None:
        page = slow.open("/data")
        upload(page, large)
        expect(page.get_by_text(re.compile("Uploading large.csv: [1-9][0-9]? % of 946 KiB"))).to_be_visible()
        expect(page.get_by_role("progressbar", name="progress of the upload")).to_be_visible()
        page.get_by_role("button", name="Cancel upload").click(delay=200)  # a click takes longer than an update
        expect(page.get_by_text("Upload cancelled; nothing was stored.")).to_be_visible()
        assert "tables/large" not in {dataset["name"] for dataset in stage.client.get("/v1/datasets").json()["data"]}

    def test_continues_after_leaving_page(self, slow: Visitor, stage: Stage, large: Path) -> None:
        page = slow.open("/data")
        upload(page, large)
        expect(page.get_by_text(re.compile("Uploading large.csv: [1-9]"))).to_be_visible()
        page.get_by_role("link", name="Leaderboard").click()
        expect(page.get_by_role("heading", name="Leaderboard")).to_be_visible()
        expect(page.get_by_text("tables/large is ready: 120,000 records.")).to_be_visible()
        assert stage.client.delete("/v1/datasets/tables/large").status_code == 204

    def test_accepts_dropped_file(self, visitor: Visitor) -> None:
        page = visitor.open("/data")
        for name in ("First one.jsonl", "second.csv"):
            dropped = page.evaluate_handle(
                "name => { const all = new DataTransfer(); all.items.add(new File(['a,label'], name)); return all; }",
                name,
            )
            page.locator(".drop").dispatch_event("drop", {"dataTransfer": dropped})
        expect(page.get_by_label("Name", exact=True)).to_have_value("second")
        expect(page.get_by_label("Format", exact=True)).to_have_value("csv")
        visitor.allow_status(422, "/v1/datasets")
        page.get_by_role("button", name="Upload").click()
        expect(page.locator("form .wrong")).to_be_visible()


def test_previews_uploaded_images(visitor: Visitor, images: Path) -> None:
    page = visitor.open("/data")
    upload(page, images)
    expect(page.get_by_text("images/shades is ready: 60 records.")).to_be_visible()
    details = page.get_by_role("region", name="images/shades", exact=True)
    pictures = details.get_by_role("img", name=re.compile("Image of class"))
    expect(pictures.first).to_be_visible()
    assert pictures.first.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 8
    page.reload()
    expect(pictures.first).to_be_visible()
    details.get_by_role("link", name="Train on it").click()
    expect(page.get_by_label("Batch size", exact=True)).to_have_value("16")  # 64 exceeds the records
    expect(page.get_by_role("heading", name="Resolved spec")).to_be_visible()


def test_shows_why_upload_is_rejected(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("/data")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("Select a file first.")).to_be_visible()

    visitor.allow_status(422, "/v1/datasets")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"no archive")
    upload(page, broken)
    expect(page.locator("form .wrong")).not_to_be_empty()
    no_label = tmp_path / "nolabel.csv"
    no_label.write_text("a,b\n1,2\n3,4\n")
    page.get_by_label("Name", exact=True).fill("Not A Name")
    upload(page, no_label)
    expect(page.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")
