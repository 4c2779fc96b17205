"""`/v1/catalog`: what a job can name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter

from service import catalog, data
from service.config import settings
from service.routes.parts import Caller
from service.schemas import Catalog, CatalogEntry, DatasetEntry, ModelEntry

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])


def _schema(choice: type[catalog.Frozen]) -> dict[str, Any]:
    """JSON Schema of a choice's parameters."""
    params: Any = choice.model_fields["params"].rebuild_annotation()
    return TypeAdapter(params).json_schema()


@router.get("", response_model=Catalog)
def show(_: Caller) -> Catalog:
    """Data sets, models, optimizers and schedules, with their parameters."""
    folder = settings().data
    return Catalog(
        datasets=[
            DatasetEntry(
                name=name,
                title=choice.title,
                params=_schema(choice),
                kind=choice.kind,
                classes=choice.classes,
                present=(present := data.is_present(name, folder)),
                fetch=None if present else data.fetch_command(name),
            )
            for name, choice in catalog.DATASETS.items()
        ],
        models=[
            ModelEntry(name=name, title=choice.title, params=_schema(choice), reads=choice.reads)
            for name, choice in catalog.MODELS.items()
        ],
        optimizers=[_entry(name, choice) for name, choice in catalog.OPTIMIZERS.items()],
        schedules=[_entry(name, choice) for name, choice in catalog.SCHEDULES.items()],
    )


def _entry(name: str, choice: type[catalog.Optimizer] | type[catalog.Schedule]) -> CatalogEntry:
    return CatalogEntry(name=name, title=choice.title, params=_schema(choice))
