"""Registration of catalog entries, and fields that accept them."""

from typing import Any, ClassVar, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from service.specs.base import Frozen
from service.specs.catalog.base import Choice, Chosen


class Params(Frozen):
    size: int = 1


class Pet(Choice):
    """A kind for these tests, which leaves the catalog unchanged."""

    table: ClassVar[dict[str, Any]] = {}
    legs: ClassVar[int]


class Cat(Pet):
    title = "cat"
    legs = 4
    name: Literal["cat"] = "cat"
    params: Params = Params()


class Hen(Pet):
    title = "hen"
    legs = 2
    name: Literal["hen"] = "hen"
    params: Params = Params()


PET = TypeAdapter[Pet](Chosen[Pet])


def test_class_definition_registers_entry():
    assert Pet.table == {"cat": Cat, "hen": Hen}


def test_field_accepts_name_or_object():
    assert PET.validate_python("hen") == Hen()
    assert PET.validate_python({"name": "cat", "params": {"size": 3}}) == Cat(params=Params(size=3))
    assert list(PET.json_schema()["discriminator"]["mapping"]) == ["cat", "hen"]
    with pytest.raises(ValidationError, match="'cat', 'hen'"):
        PET.validate_python("dog")


@pytest.mark.parametrize(
    ("attributes", "missing"), [({"title": "dog"}, "legs"), ({"legs": 4}, "title"), ({}, "legs, title")]
)
def test_definition_without_required_attribute_raises_type_error(attributes, missing):
    annotations = {"name": Literal["dog"], "params": Params}
    body = {"__module__": __name__, "__annotations__": annotations, "name": "dog", "params": Params(), **attributes}
    with pytest.raises(TypeError, match=rf"^catalog entry Dog must define the class attribute {missing}$"):
        type(Pet)("Dog", (Pet,), body)
    assert "dog" not in Pet.table


def test_repeated_name_raises_type_error():
    with pytest.raises(TypeError, match="the name 'cat' is taken"):

        class Tiger(Pet):
            title = "tiger"
            legs = 4
            name: Literal["cat"] = "cat"
            params: Params = Params()

    assert Pet.table["cat"] is Cat
