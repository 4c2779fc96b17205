"""`/v1/leaderboard`: optimizers by mean, per setting."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from service.comparisons import leaderboard
from service.comparisons.boards import Leaderboard
from service.comparisons.stored_jobs import DatasetName, ModelName, Words
from service.specs.bodies import ARCHIVED
from service.web.dependencies import Caller, Database, StrictQuery

router = APIRouter(prefix="/v1/leaderboard", tags=["compare"])


class LeaderboardQuery(StrictQuery):
    """Selection of runs."""

    dataset: DatasetName = Field(examples=["digits"])
    model: ModelName = Field(examples=["mlp"])
    metric: Words = Field("test_accuracy", min_length=1, description="Metric to rank by, taken at the end of each run.")
    archived: bool = Field(False, description=ARCHIVED)


@router.get("", response_model=Leaderboard, summary="Rank optimizers")
def show(session: Database, _: Caller, query: Annotated[LeaderboardQuery, Query()]) -> Response:
    """Optimizers ranked by the mean of the metric in each training setting. The latest run of each seed counts."""
    board = leaderboard.leaderboard(session, query.dataset, query.model, query.metric, archived=query.archived)
    return Response(board.model_dump_json(), media_type="application/json")
