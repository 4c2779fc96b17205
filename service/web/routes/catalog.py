"""`/v1/catalog`: data sets, models, optimizers and schedules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from service.code import plugins, versions
from service.code.support import support
from service.datasets import registry
from service.errors import NotFound
from service.specs.base import Frozen
from service.specs.bodies import (
    Catalog,
    CatalogEntry,
    CodeSupport,
    DatasetEntry,
    LibraryEntry,
    LibraryModelEntry,
    LibraryOptimizer,
    ModelDetail,
    ModelEntry,
    ModelLibraryDetail,
    ModelLibraryEntry,
    OptimizerDetail,
    OptimizerEntry,
)
from service.specs.catalog import model_libraries
from service.specs.catalog.datasets import dataset_class
from service.specs.catalog.declaration import Declaration, default_space
from service.specs.catalog.libraries import LIBRARIES, Library, find_declaration, libraries, unknown_optimizer
from service.specs.catalog.model_libraries import MODEL_LIBRARIES, ModelLibrary, find_model, unknown_model
from service.specs.catalog.models import MODELS, NoParams
from service.specs.catalog.optimizers import OPTIMIZERS, Optimizer, entry_of
from service.specs.catalog.schedules import SCHEDULES, Schedule
from service.specs.text import unknown_name
from service.web.dependencies import Caller, Database

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])


@cache
def _schema(choice: type[Frozen]) -> dict[str, Any]:
    """JSON Schema of a choice's parameters; making all of them takes 70 ms."""
    return params_schema(choice.model_fields["params"].rebuild_annotation())


def params_schema(params: Any) -> dict[str, Any]:
    """JSON Schema of parameters."""
    return TypeAdapter(params).json_schema()


@router.get("", response_model=Catalog, summary="Show the catalog")
def show(session: Database, _: Caller) -> Catalog:
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
        libraries=[*map(_library, libraries()), *_plugins()],
        model_libraries=[
            ModelLibraryEntry(**_facts(library), models=sum(model.refusal is None for model in library.models))
            for library in model_libraries.libraries()
        ],
        schedules=[_entry(name, choice) for name, choice in SCHEDULES.items()],
        code=_code(session),
    )


@router.get("/models/{library}", response_model=ModelLibraryDetail, summary="List the models of a library")
def show_models(library: str, _: Caller) -> ModelLibraryDetail:
    """The models of torchvision or timm, in the order of their names."""
    found = next((each for each in model_libraries.libraries() if each.name == library), None)
    if found is None:
        raise NotFound(unknown_name("library of models", library, MODEL_LIBRARIES))
    models = [
        LibraryModelEntry(**model.model_dump(include=set(LibraryModelEntry.model_fields))) for model in found.models
    ]
    return ModelLibraryDetail(**_facts(found), models=models)


@router.get("/models/{library}/{name}", response_model=ModelDetail, summary="Show a model of a library")
def show_model(library: str, name: str, _: Caller) -> ModelDetail:
    """A model of torchvision or timm: the images that it takes, and its size."""
    full_name = f"{library}/{name}"
    if library not in MODEL_LIBRARIES:
        raise NotFound(unknown_name("library of models", library, MODEL_LIBRARIES))
    model = find_model(full_name)
    if model is None:
        raise NotFound(unknown_model(full_name))
    shown = model.model_dump(include=set(ModelDetail.model_fields))
    return ModelDetail(**shown, params=params_schema(NoParams), reads="image")


def _facts(library: ModelLibrary) -> dict[str, Any]:
    """What is known about a library, without its models."""
    return library.model_dump(include={"name", "version", "licence", "url"})


@router.get("/optimizers/{name}", response_model=OptimizerDetail, summary="Show a built-in optimizer")
def show_built_in(name: str, _: Caller) -> OptimizerDetail:
    """An optimizer of kotrain: its parameters, its default search space and what it needs."""
    if name not in OPTIMIZERS:
        raise NotFound(unknown_name("optimizer", name, OPTIMIZERS))
    return _detail(name, OPTIMIZERS[name])


@router.get(
    "/optimizers/{library}/{name}",
    response_model=OptimizerDetail,
    summary="Show an optimizer of a library or plug-in, or an uploaded one",
)
def show_declared(library: str, name: str, _: Caller) -> OptimizerDetail:
    """An optimizer of a library or of a plug-in, or one that the user `library` uploaded.

    Its parameters, its default search space, what it needs, and remarks.
    """
    full_name = f"{library}/{name}"
    if library not in LIBRARIES:
        uploaded = versions.find(full_name)
        if uploaded is None:
            known = [*LIBRARIES, *sorted(plugins.packages())]
            raise NotFound(
                plugins.why_missing(full_name)
                or f"{unknown_name('library', library, known)}, or a user with uploaded code"
            )
        return _detail(uploaded.name, entry_of(uploaded), uploaded)
    declared = find_declaration(full_name)
    if declared is None:
        raise NotFound(unknown_optimizer(full_name))
    return _detail(full_name, entry_of(declared), declared)


def _detail(name: str, choice: type[Optimizer], declared: Declaration | None = None) -> OptimizerDetail:
    params = choice.model_fields["params"]
    return OptimizerDetail(
        name=name,
        title=choice.title,
        params=_schema(choice),
        colour=choice.colour,
        space=choice.space or default_space(params.default),
        needs=list(choice.needs),
        base_of=list(choice.base_of),
        refusal=declared.refusal if declared else None,
        source=declared.source or None if declared else None,
        remarks=list(declared.remarks) if declared else [],
    )


def _code(session: Session) -> CodeSupport:
    optimizers = [
        LibraryOptimizer(name=row.version.partition("@")[0], title=row.declaration["title"], refusal=None)
        for row in versions.newest(session)
    ]
    return CodeSupport(**support(), optimizers=optimizers)


def _library(library: Library) -> LibraryEntry:
    return LibraryEntry(
        **library.model_dump(include={"name", "version", "licence", "url"}),
        optimizers=[
            LibraryOptimizer(name=declared.name, title=declared.title, refusal=declared.refusal)
            for declared in library.optimizers
        ],
    )


def _plugins() -> Iterator[LibraryEntry]:
    """The packages of plug-ins, each as a library."""
    for package in sorted(plugins.packages()):
        members = [plugin for plugin in plugins.plugins().values() if plugin.package == package]
        yield LibraryEntry(
            name=package,
            version=members[0].fact("Version"),
            licence=members[0].fact("License-Expression", "License"),
            url=members[0].url,
            optimizers=[
                LibraryOptimizer(name=plugin.name, title=plugin.declaration.title, refusal=plugin.declaration.refusal)
                for plugin in members
            ],
        )


def _entry(name: str, choice: type[Schedule]) -> CatalogEntry:
    return CatalogEntry(name=name, title=choice.title, params=_schema(choice))
