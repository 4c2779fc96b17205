"""The base of all catalog entries, and the value types that their parameters share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
)
from pydantic_core import CoreSchema, core_schema

from service.specs.base import Frozen

LearningRate = Annotated[float, Field(gt=0, le=100)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


@dataclass(frozen=True)
class OneOf:
    """Annotation of a field that accepts any model of `table`, which is read when pydantic builds the validator.

    `by` is the name of the field that tells the models apart, or a function from the input to the model's key.
    """

    table: Mapping[str, Any]
    by: str | Callable[[Any], str | None]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of a tagged union of the models, in the order of the table."""
        if isinstance(self.by, str):
            union: Any = Annotated[Union[tuple(self.table.values())], Field(discriminator=self.by)]  # noqa: UP007
        else:
            members = tuple(Annotated[model, Tag(key)] for key, model in self.table.items())
            union = Annotated[Union[members], Discriminator(self.by)]  # noqa: UP007 (made at run time)
        return handler.generate_schema(union)


@dataclass(frozen=True)
class LookedUp:
    """Annotation of a field whose model is looked up for each input, because there are too many to build them all."""

    look_up: Callable[[Any], tuple[type[BaseModel], Any]]
    """The model for an input, and what it validates. Raises ValueError or PydanticCustomError if there is none."""
    published: type[BaseModel]
    """The model whose JSON Schema is published for all of them."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of a function that validates with the model of the input."""
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The JSON Schema of `published`."""
        return handler(self.published.__pydantic_core_schema__)

    def _validate(self, value: Any) -> Any:
        if isinstance(value, Frozen):
            return value
        model, content = self.look_up(value)
        return model.model_validate(content)


DECLARED = "LIBRARY/NAME"
"""Key, in unions, of all entries that are made from declarations when they are first named."""


def key_by(is_declared: Callable[[str], bool]) -> Callable[[Any], str | None]:
    """A function from an entry, or a request for one, to its key in a union: its name, or `DECLARED`."""

    def key(value: Any) -> str | None:
        name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
        if not isinstance(name, str):
            return None if name is None else str(name)
        return DECLARED if is_declared(name) else name

    return key


class Choice(Frozen):
    """Base of catalog entries: `name` selects one, `params` configures it.

    A subclass whose `name` has a default is an entry: it is added to the `table` of its kind when it is defined. The
    request schemas, `GET /v1/catalog` and the forms of the dashboard follow from that table. Class attributes hold the
    facts that are needed before a run starts.

    Raises:
        TypeError: at its definition, an entry that lacks one of the class attributes of its kind, or whose name is
            taken.
    """

    table: ClassVar[dict[str, Any]]
    """Name -> entry of this kind, in the order of definition."""
    title: ClassVar[str]
    """Description in lists and forms: a noun phrase, with its source."""

    name: str
    params: Frozen

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Add the class to the table of its kind, if it is an entry."""
        super().__pydantic_init_subclass__(**options)
        name = cls.model_fields["name"]
        if name.is_required():
            return
        missing = [attribute for attribute in sorted(cls.__class_vars__) if not hasattr(cls, attribute)]
        if missing:
            raise TypeError(f"catalog entry {cls.__name__} must define the class attribute {', '.join(missing)}")
        if name.default in cls.table:
            raise TypeError(f"catalog entry {cls.__name__}: the name '{name.default}' is taken")
        cls.table[name.default] = cls

    @classmethod
    def union(cls) -> OneOf:
        """All entries of this kind."""
        return OneOf(cls.table, by="name")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Entry = TypeVar("Entry", bound=Choice)

if TYPE_CHECKING:
    Chosen = Annotated[Entry, ...]  # to a type checker, `Chosen[Model]` is `Model`
else:

    class Chosen:
        """Annotation of a field: `Chosen[Model]` accepts any model of the catalog, as an object or by its bare name."""

        def __class_getitem__(cls, kind: type[Choice]) -> Any:
            return Annotated[Any, kind.union(), BeforeValidator(_named)]  # FastAPI would publish `kind` as a schema
