"""The dashboard with 5,000 jobs and a curve of 100,000 points."""

import json
import re
from uuid import UUID

import pytest
from playwright.sync_api import Locator, Route, expect
from sqlalchemy import text

from service.metrics import write
from service.storage import database
from tests.acceptance.lab import JOB
from tests.browser.visitor import Stage, Visitor
from tests.waiting import until

JOBS = 5000
POINTS = 100_000
LIMIT_MILLISECONDS = 15_000  # on a busy machine; measured times are printed
MAX_TRACE_POINTS = 4000  # the API thins longer curves

COPIES = text(
    """
    INSERT INTO jobs (id, user_id, spec, dataset, model, optimizer, needs_cuda, tags, priority, max_failures,
                      data_stamp, cancel_requested, attempt, failures, seq, step, status, reason, summary, created_at,
                      finished_at)
    SELECT uuidv7(-n * interval '1 minute'), user_id,
           jsonb_set(jsonb_set(spec, '{seed}', to_jsonb(n)), '{optimizer,name}', to_jsonb(chosen.name)),
           dataset, model, chosen.name, false, jsonb_build_object('round', 'round-' || n % 50), 0, 1, data_stamp,
           false, 1, 0, 1, 44, 'succeeded', 'completed', CAST(:summary AS jsonb), now() - n * interval '1 minute', now()
    FROM jobs, generate_series(2, :count) AS n,
         LATERAL (SELECT (ARRAY['adam', 'sgd', 'ko', 'lion'])[1 + n % 4] AS name) AS chosen
    WHERE jobs.id = :id
    """
)


@pytest.fixture(scope="module")
def jobs(stage: Stage) -> str:
    """The newest of 5,000 jobs: it is queued, the others have succeeded."""
    job_id = stage.lab.submit(JOB)
    summary = {
        "reason": "completed", "metrics": {"test_accuracy": 0.97, "train_loss": 0.1}, "steps": 44, "epochs": 2,
        "train_seconds": 1.5, "total_seconds": 2.0, "parameters": 2000, "best_step": None, "target": None,
    }  # fmt: skip
    with database.transaction() as session:
        session.execute(COPIES, {"id": job_id, "count": JOBS, "summary": json.dumps(summary)})
        session.execute(text("ANALYZE jobs"))
    return job_id


def check_time(visitor: Visitor, action: str, start: float) -> None:
    """Print the browser's time since `start`, in milliseconds, and fail if it is too long."""
    elapsed = visitor.page.evaluate("performance.now()") - start
    print(f"{action}: {elapsed:.0f} ms")
    assert elapsed < LIMIT_MILLISECONDS


@pytest.mark.usefixtures("jobs")
def test_lists_and_filters_5000_jobs(visitor: Visitor) -> None:
    page = visitor.open("/jobs")
    rows = page.locator("tbody tr")
    now = "performance.now()"
    expect(rows).to_have_count(100)
    check_time(visitor, "first rows", 0)
    expect(page.get_by_role("button", name="all 5,000")).to_be_visible()
    expect(page.get_by_role("button", name="succeeded 4,999")).to_be_visible()
    expect(page.get_by_role("button", name="queued 1")).to_be_visible()

    start = page.evaluate(now)
    page.get_by_label("Optimizer", exact=True).select_option("lion")
    expect(page.get_by_role("button", name="all 1,250")).to_be_visible()
    expect(rows.filter(has_text="lion")).to_have_count(100)
    check_time(visitor, "by optimizer", start)

    start = page.evaluate(now)
    page.get_by_label("Search").fill("round-7")
    expect(page.get_by_role("button", name="all 50", exact=True)).to_be_visible()
    check_time(visitor, "by a search", start)
    page.get_by_label("Search").fill("no match")
    expect(page.get_by_text("No matching jobs")).to_be_visible()
    page.get_by_role("button", name="Clear all filters").click()
    expect(rows).to_have_count(100)

    start = page.evaluate(now)
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(200)
    expect(page.get_by_text("200 jobs shown")).to_be_visible()
    check_time(visitor, "more rows", start)
    page.get_by_role("button", name="succeeded").click()
    expect(page).to_have_url(re.compile(r"[?]status=succeeded$"))


@pytest.mark.usefixtures("jobs")
def test_loaded_rows_survive_refresh(visitor: Visitor, stage: Stage) -> None:
    """Rows of further pages stay after new jobs, while a response is pending, and when the stream reconnects."""
    page = visitor.page
    rows, show_more = page.locator("tbody tr"), page.get_by_role("button", name="Show more")
    held: list[Route] = []

    def new_job() -> Locator:
        return page.locator(f"tr[data-key='{stage.lab.submit(JOB)}']")

    visitor.open("/jobs")
    expect(rows).to_have_count(100)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    expect(new_job()).to_be_visible()
    second = new_job()  # right after the first: shown after the throttle
    show_more.click()
    expect(rows).to_have_count(200)
    expect(second).to_be_visible()
    expect(rows).to_have_count(200)

    page.route("**/v1/jobs?*", lambda route: held.append(route), times=1)
    show_more.click()
    expect(new_job()).to_be_visible()
    held.pop().continue_()
    expect(rows).to_have_count(300)

    with visitor.without_the_api():
        stage.api.kill()
        expect(page.get_by_text("reconnecting")).to_be_visible()
        stage.api.start()
        stage.api.ready()
        third = new_job()
        expect(third).to_be_visible()
    expect(rows).to_have_count(300)


def test_thins_curve_of_100000_points(visitor: Visitor, jobs: str) -> None:
    steps = list(range(1, POINTS + 1))
    values = [1.0 + (step % 7) / 10 for step in steps]
    values[12_344], values[77_776] = 50.0, 0.001  # thinning must keep these two
    seconds = [step / 1000 for step in steps]
    curve = (steps, values, seconds)
    with database.transaction() as session:
        write.append(session, [(UUID(jobs), {"train_loss": curve})])
    visitor.open(f"/jobs/{jobs}")
    until(lambda: visitor.figures().get("Loss"))
    check_time(visitor, "a curve of 100,000 points", 0)
    (loss,) = visitor.figures()["Loss"]
    assert 500 < len(loss["x"]) <= MAX_TRACE_POINTS
    assert (loss["x"][0], loss["x"][-1]) == (1, POINTS)
    assert dict(zip(loss["x"], loss["y"], strict=True)).items() >= {12_345: 50.0, 77_777: 0.001}.items()
