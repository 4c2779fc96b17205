"""The parameters of an optimizer, read from the syntax tree of the function that constructs it."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from service.errors import Invalid
from service.specs.base import Frozen
from service.specs.catalog.declaration import Parameter
from service.validation import field_errors

MAX_PARAMETERS = 64
"""Maximum number of an optimizer's parameters."""

_TAKEN = ("base", "name", "params")
MAX_CHOICES = 100
_TYPES = {"float": "number", "int": "integer", "bool": "boolean", "str": "string"}
_SEQUENCES = {"tuple", "list", "Tuple", "List", "Sequence", "Iterable"}


@dataclass(frozen=True)
class Signature:
    """A function whose parameters, after the first one, are an optimizer's.

    Args:
        owner: the name of the class, or of the function itself.
        function: the function.
        is_method: whether it has a parameter `self`.
        constants: values that the module assigns to names.
        descriptions: parameter -> what the docstring says of it.
        invalid: makes the error of a problem at a node.
    """

    owner: str
    function: ast.FunctionDef
    is_method: bool
    constants: Mapping[str, ast.expr]
    descriptions: Mapping[str, str]
    invalid: Callable[[str, ast.AST], Invalid]

    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters after the first one, which is the model or its parameters. Raises Invalid."""
        function = self.function
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        if self.is_method:
            positional = positional[1:]  # self
        if arguments.vararg or arguments.kwarg:
            argument = arguments.vararg or arguments.kwarg
            assert argument is not None
            stars = "*" if argument is arguments.vararg else "**"
            raise self.invalid(
                f"{stars}{argument.arg} of {self.owner} hides parameters: list each with its default", argument
            )
        if not positional:
            first = "params" if self.is_method else "model"
            raise self.invalid(f"{self.owner} must accept {first} as its first parameter", function)
        defaults = dict(zip(reversed([a.arg for a in positional]), reversed(arguments.defaults), strict=False))
        by_keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        defaults |= {keyword.arg: default for keyword, default in by_keyword if default is not None}
        named = [*positional[1:], *arguments.kwonlyargs]
        if len(named) > MAX_PARAMETERS:
            raise self.invalid(f"{self.owner} has {len(named)} parameters; at most {MAX_PARAMETERS}", function)
        without = [argument for argument in named if argument.arg not in defaults]
        if without:
            raise self.invalid(
                f"parameter '{without[0].arg}' of {self.owner} has no default; jobs may omit every parameter",
                without[0],
            )
        return tuple(self._checked(argument, self._parameter(argument, defaults[argument.arg])) for argument in named)

    def _checked(self, argument: ast.arg, parameter: Parameter) -> Parameter:
        """The parameter. Raises Invalid if its default is outside its range: a learning rate of 0."""
        try:
            TypeAdapter(parameter.annotation).validate_python(parameter.value, strict=True)
        except ValidationError as error:
            detail = field_errors(error, parameter.value)[0].detail
            raise self.invalid(f"the default of '{argument.arg}' is invalid: {detail}", argument) from None
        return parameter

    def _parameter(self, argument: ast.arg, default: ast.expr) -> Parameter:
        is_taken = argument.arg in _TAKEN or hasattr(Frozen, argument.arg)
        if argument.arg.startswith(("_", "model_")) or is_taken:
            raise self.invalid(f"'{argument.arg}' cannot be the name of a parameter", argument)
        value = self._default(argument, default)
        choices, kinds, is_optional = self._annotation(argument)
        common: dict[str, Any] = {
            "name": argument.arg,
            "is_optional": is_optional or value is None,
            "description": self.descriptions.get(argument.arg, ""),
        }
        texts = [text for text in (*choices, value) if isinstance(text, str)]
        if len(choices) > MAX_CHOICES or not all(text.isprintable() and len(text) <= MAX_CHOICES for text in texts):
            raise self.invalid(
                f"the values of '{argument.arg}' must be at most {MAX_CHOICES} texts of at most {MAX_CHOICES} "
                "printable characters",
                argument,
            )
        if choices:
            if value is not None and value not in choices:
                raise self.invalid(f"the default of '{argument.arg}' is not one of its values", argument)
            return Parameter(**common, type="string", default=value, choices=tuple(choices))
        if isinstance(value, tuple | list):
            if not value or not all(_is_number(item) for item in value):
                raise self.invalid(f"the default of '{argument.arg}' must be a tuple of numbers", argument)
            return Parameter(**common, type="numbers", default=[float(item) for item in value])
        kind = next((kind for kind in kinds if kind), None) or _kind_of(value)
        if kind is None:
            raise self.invalid(
                f"the type of '{argument.arg}' is unknown: annotate it as float, int, bool, str, a Literal of strings "
                "or a tuple of floats",
                argument,
            )
        if value is not None and not _fits(value, kind):
            raise self.invalid(f"the default of '{argument.arg}' is {repr(value)[:64]}, which is no {kind}", argument)
        if kind == "number" and value is not None:
            value = float(value)
        return Parameter(**common, type=kind, default=value)

    def _default(self, argument: ast.arg, node: ast.expr) -> Any:
        """The value of a default: a literal, or a constant of the module."""
        if isinstance(node, ast.Name) and node.id in self.constants:
            node = self.constants[node.id]
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError):
            raise self.invalid(
                f"the default of '{argument.arg}' must be a literal or a constant of the file, because nothing is "
                "executed to read it",
                argument,
            ) from None
        is_known = value is None or isinstance(value, bool | int | float | str | tuple | list)
        if not is_known or (isinstance(value, float) and not math.isfinite(value)):
            raise self.invalid(
                f"the default of '{argument.arg}' must be a finite number, a text, true or false, None or a tuple of "
                "numbers",
                argument,
            )
        return value

    def _annotation(self, argument: ast.arg) -> tuple[list[str], list[str], bool]:
        """The choices, the known types and whether None is allowed, of an annotation."""
        choices: list[str] = []
        kinds: list[str] = []
        is_optional = False
        for member in self._members(argument.annotation):
            if isinstance(member, ast.Constant) and member.value is None:
                is_optional = True
                continue
            name = _name(member)
            if isinstance(member, ast.Subscript) and name == "Literal":
                values = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
                literals = [value.value for value in values if isinstance(value, ast.Constant)]
                choices += [value for value in literals if isinstance(value, str)]
                is_optional = is_optional or None in literals
            elif name not in _SEQUENCES:
                kinds.append(_TYPES.get(name, ""))
        return choices, kinds, is_optional

    def _members(self, node: ast.expr | None) -> Iterator[ast.expr]:
        """The members of a union, or the annotation itself."""
        if node is None:
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                yield from self._members(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                yield node
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield from self._members(node.left)
            yield from self._members(node.right)
        elif isinstance(node, ast.Subscript) and _name(node) in ("Optional", "Union"):
            if _name(node) == "Optional":
                yield ast.Constant(None)
            for member in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
                yield from self._members(member)
        elif isinstance(node, ast.Subscript) and _name(node) == "Annotated":
            yield from self._members(node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice)
        else:
            yield node


def _name(node: ast.expr) -> str:
    """The name of a type in an annotation, without its module."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind_of(value: Any) -> str | None:
    """The type of a default without an annotation."""
    for type_, kind in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, type_):
            return kind
    return None


def _fits(value: Any, kind: str) -> bool:
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return _is_number(value)
    return isinstance(value, str)
