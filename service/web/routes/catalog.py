"""`/v1/catalog`: data sets, models, optimizers and schedules."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter

from service.datasets import registry
from service.specs.base import Frozen
from service.specs.bodies import Catalog, CatalogEntry, DatasetEntry, ModelEntry, OptimizerEntry
from service.specs.catalog.datasets import dataset_class
from service.specs.catalog.models import MODELS
from service.specs.catalog.optimizers import OPTIMIZERS
from service.specs.catalog.schedules import SCHEDULES, Schedule
from service.web.dependencies import Caller

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])


@cache
def _schema(choice: type[Frozen]) -> dict[str, Any]:
    """JSON Schema of a choice's parameters; making all of them takes 70 ms."""
    params: Any = choice.model_fields["params"].rebuild_annotation()
    return TypeAdapter(params).json_schema()


@router.get("", response_model=Catalog, summary="Show the catalog")
def show(_: Caller) -> Catalog:
    """All data sets, models, optimizers and schedules, with JSON Schemas of their parameters."""
    return Catalog(
        datasets=[
            DatasetEntry(
                name=dataset.name,
                title=dataset.title,
                params=_schema(dataset_class(dataset.name)),
                kind=dataset.kind,
                classes=dataset.classes,
                present=dataset.present,
                fetch=dataset.fetch,
            )
            for dataset in registry.view_all()
        ],
        models=[
            ModelEntry(
                name=name,
                title=choice.title,
                params=_schema(choice),
                reads=choice.reads,
                also_reads=list(choice.also_reads),
            )
            for name, choice in MODELS.items()
        ],
        optimizers=[
            OptimizerEntry(name=name, title=choice.title, params=_schema(choice), colour=choice.colour)
            for name, choice in OPTIMIZERS.items()
        ],
        schedules=[_entry(name, choice) for name, choice in SCHEDULES.items()],
    )


def _entry(name: str, choice: type[Schedule]) -> CatalogEntry:
    return CatalogEntry(name=name, title=choice.title, params=_schema(choice))
