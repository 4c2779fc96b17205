"""What a Python file with an optimizer declares, read from its syntax tree: nothing of it is executed.

A file defines either a subclass of `torch.optim.Optimizer`, or a function `make(model, ...)` that returns an optimizer
of a model. The parameters after the first one are the optimizer's; their types come from annotations and defaults.
Constants of the module say the rest:

- `OPTIMIZER`: the name of the class, if there are several;
- `SPACE`: the default search space, as in a comparison;
- `NEEDS`: what it needs from the training loop (`service.specs.catalog.declaration.Need`), such as `["closure"]`.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from service.code.signature import Signature
from service.errors import Invalid
from service.specs.catalog.declaration import Declaration, Need, Parameter
from service.specs.docstrings import parameter_texts
from service.specs.search_space import MAX_PARAMETERS, Range, Space
from service.specs.text import counted, listed
from service.validation import field_errors

MAX_BYTES = 2**18
"""Maximum size of a file."""

PACKAGES = ("torch", "torchvision", "numpy", "pytorch_optimizer", "schedulefree", "heavyball", "sklearn", "scipy", "ko")
"""Packages that uploaded code may import, beside Python's standard library."""

ROOT = "torch.optim.Optimizer"
FACTORY = "make"
_UPLOADABLE_NEEDS: tuple[Need, ...] = ("closure", "create_graph", "modes")


@dataclass(frozen=True)
class Source:
    """A file of Python code.

    Raises:
        Invalid: from every method, with the line of the file, if it is not what kotrain can use.
    """

    file: str
    """Its name, for messages."""
    text: str
    is_trusted: bool = False
    """Whether it is that of a plug-in: it may import what is installed and modules beside it, and derive from them."""

    @classmethod
    def from_bytes(cls, file: str, content: bytes) -> Source:
        """The file with this content. Raises Invalid if it is too large or no text."""
        if not content.strip():
            raise Invalid.field("", f"{file} is empty; the request body is the Python file")
        if len(content) > MAX_BYTES:
            raise Invalid.field("", f"{file} has {len(content):,} bytes; at most {MAX_BYTES:,} are accepted")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Invalid.field("", f"{file} is not text in UTF-8: byte {error.start} is invalid") from None
        return cls(file, text)

    def declare(self, name: str, chosen: str | None = None) -> Declaration:
        """The optimizer that the file defines, under this name; `chosen` names its class or function."""
        try:
            return self._declare(name, chosen)
        except RecursionError:
            raise Invalid.field("", f"{self.file} cannot be read: its expressions are nested too deeply") from None

    def _declare(self, name: str, chosen: str | None) -> Declaration:
        module = _Module(self)
        definition = module.definition(chosen)
        parameters = module.signature(definition).parameters()
        return Declaration(
            name=name,
            class_name=definition.name,
            title=module.title(definition) or f"{definition.name} of {self.file}",
            parameters=parameters,
            needs=module.needs(definition),
            base_of=("bimaxwell",) if definition.name == FACTORY else ("ko", "bimaxwell"),
            space=module.space(parameters),
            is_resumable=False,  # until the conformance test has shown it
        )


Definition = ast.ClassDef | ast.FunctionDef


class _Module:
    """The syntax tree of a file."""

    def __init__(self, source: Source) -> None:
        self._file = source.file
        self._is_trusted = source.is_trusted
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in strings
                self._tree = ast.parse(source.text)
                compile(self._tree, source.file, "exec")  # finds errors that the parser leaves, such as a lone return
        except SyntaxError as error:
            raise self._invalid(f"is not valid Python: {error.msg}", error.lineno) from None
        except ValueError as error:
            raise self._invalid(f"cannot be read: {error}") from None
        except MemoryError:  # so the parser reports a stack that is too deep
            raise RecursionError from None
        self._imported = dict(self._imports())

    def _invalid(self, problem: str, line: int | ast.AST | None = None) -> Invalid:
        number = getattr(line, "lineno", line)
        where = f"{self._file}, line {number}" if number else self._file
        return Invalid.field("", f"{where}: {problem}")

    # --- names -------------------------------------------------------------------------------------------------------

    def _imports(self) -> Iterator[tuple[str, str]]:
        """Local name -> full name of what the file imports. Raises Invalid for a package that is not available."""
        optional = {
            inner
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Try) and node.handlers
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
                for alias in node.names:
                    yield (
                        alias.asname or alias.name.partition(".")[0],
                        alias.name if alias.asname else (alias.name.partition(".")[0]),
                    )
            elif isinstance(node, ast.ImportFrom):
                if node.level and not self._is_trusted:
                    raise self._invalid("imports from its own package, but a single file has none", node)
                modules = [node.module or ""]
                source = f"{'.' * node.level}{node.module or ''}"
                for alias in node.names:
                    yield alias.asname or alias.name, f"{source}{'.' if node.module else ''}{alias.name}"
            else:
                continue
            for module in modules:
                if node not in optional and not self._is_trusted and not is_available(module):
                    raise self._invalid(
                        f"imports {module.partition('.')[0]}, which is not available; uploaded code may import "
                        f"Python's standard library and {listed(list(PACKAGES))}",
                        node,
                    )

    def _full_name(self, node: ast.expr) -> str:
        """The full name of a class in an expression, such as `torch.optim.Optimizer`."""
        if isinstance(node, ast.Name):
            return self._imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self._full_name(node.value)}.{node.attr}"
        return self._full_name(node.value) if isinstance(node, ast.Subscript) else ""

    # --- the optimizer -----------------------------------------------------------------------------------------------

    @property
    def constants(self) -> dict[str, ast.expr]:
        """The values assigned to names at the top level."""
        found: dict[str, ast.expr] = {}
        for node in self._tree.body:
            if isinstance(node, ast.Assign):
                found |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                found[node.target.id] = node.value
        return found

    def _literal(self, name: str) -> Any:
        """The value of a constant; None if there is none."""
        node = self.constants.get(name)
        if node is None:
            return None
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError):
            raise self._invalid(f"{name} must be a literal, because nothing is executed to read it", node) from None

    @property
    def _classes(self) -> dict[str, ast.ClassDef]:
        """The optimizers that the file defines, without those from which others of the file are derived."""
        defined = {node.name: node for node in self._tree.body if isinstance(node, ast.ClassDef)}

        def is_optimizer(name: str, seen: frozenset[str] = frozenset()) -> bool:
            if name not in defined or name in seen:
                libraries = ("torch.optim.", "pytorch_optimizer.", "schedulefree.", "heavyball.")
                return name == ROOT or name.startswith(libraries) or self._may_be_optimizer(name)
            return any(is_optimizer(self._full_name(base), seen | {name}) for base in defined[name].bases)

        return {name: node for name, node in defined.items() if is_optimizer(name)}

    def _may_be_optimizer(self, name: str) -> bool:
        """Whether a trusted file imports `name` from another module than those that are known to have no optimizers."""
        is_imported = any(f"{name}.".startswith(f"{full}.") for full in self._imported.values())
        return self._is_trusted and is_imported and name.partition(".")[0] not in {"torch", *sys.stdlib_module_names}

    def definition(self, chosen: str | None = None) -> Definition:
        """The class, or the function `make`; `chosen` is its name, else the constant `OPTIMIZER`."""
        classes = self._classes
        functions = {node.name: node for node in self._tree.body if isinstance(node, ast.FunctionDef)}
        name, source = (chosen, "the entry point") if chosen else (self._literal("OPTIMIZER"), "OPTIMIZER")
        if name is not None:
            known: dict[str, Definition] = {**classes, **{k: v for k, v in functions.items() if k == FACTORY}}
            if not isinstance(name, str) or name not in known:
                names = listed([*known]) if known else "no optimizer"
                if name in self._imported:
                    names += f"; it imports {self._imported[name]}: name the module that defines it"
                raise self._invalid(
                    f"{source} is {repr(name)[:64]}, but the file defines {names}", self.constants.get("OPTIMIZER")
                )
            return known[name]
        if FACTORY in functions:
            return functions[FACTORY]
        if not classes:
            raise self._invalid(
                f"defines no optimizer: write a subclass of {ROOT}, or a function {FACTORY}(model, ...) that returns "
                "one, at the top level, with a base that is imported by its name"
            )
        bases = {self._full_name(base) for node in classes.values() for base in node.bases}
        leaves = [node for name, node in classes.items() if name not in bases]
        if not leaves:
            raise self._invalid(f"the optimizers {listed([*classes])} are derived from each other")
        if len(leaves) != 1:
            names = listed([*classes])
            raise self._invalid(f'defines {counted(len(leaves), "optimizer")} ({names}); name one: OPTIMIZER = "NAME"')
        return leaves[0]

    def signature(self, definition: Definition) -> Signature:
        """The function whose parameters are the optimizer's."""
        is_class = isinstance(definition, ast.ClassDef)
        function = self._constructor(definition)
        texts = [ast.get_docstring(node) or "" for node in (definition, function)]
        descriptions = parameter_texts("\n".join(_printable(text) for text in texts))
        return Signature(definition.name, function, is_class, self.constants, descriptions, self._invalid)

    def _constructor(self, definition: Definition) -> ast.FunctionDef:
        if isinstance(definition, ast.FunctionDef):
            return definition
        current: ast.ClassDef | None = definition
        while current is not None:
            for node in current.body:
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    return node
            names = [self._full_name(base) for base in current.bases]
            current = next((self._classes[name] for name in names if name in self._classes), None)
        raise self._invalid(
            f"{definition.name} has no __init__, which declares the parameters and their defaults", definition
        )

    def title(self, definition: Definition) -> str:
        """The first line of the docstring of the optimizer, or of the file."""
        text = ast.get_docstring(definition) or ast.get_docstring(self._tree) or ""
        return _printable(text.strip().partition("\n")[0].strip().rstrip("."))[:160]

    def needs(self, definition: Definition) -> tuple[Need, ...]:
        """What the optimizer needs from the training loop."""
        declared = self._literal("NEEDS")
        if declared is None:
            declared = []
        if not isinstance(declared, list | tuple | set) or not set(declared) <= {*_UPLOADABLE_NEEDS}:
            raise self._invalid(
                f"NEEDS must be a list with some of {listed([*_UPLOADABLE_NEEDS])}", self.constants["NEEDS"]
            )
        methods = {node.name for node in definition.body if isinstance(node, ast.FunctionDef)}
        found = {*declared}
        if isinstance(definition, ast.ClassDef) and {"train", "eval"} <= methods:
            found.add("modes")
        if definition.name == FACTORY:
            found.add("model")
        return tuple(need for need in get_args(Need) if need in found)

    def space(self, parameters: tuple[Parameter, ...]) -> dict[str, Any] | None:
        """The default search space; None for the usual one."""
        space = self._literal("SPACE")
        if space is None:
            return None
        where = self.constants["SPACE"]
        if not isinstance(space, dict) or not 1 <= len(space) <= MAX_PARAMETERS:
            raise self._invalid(
                f'SPACE must be a dictionary of 1 to {MAX_PARAMETERS} parameters, such as {{"lr": {{"log_uniform": '
                "[0.0001, 0.1]}}",
                where,
            )
        models = {parameter.name: parameter.annotation for parameter in parameters}
        unknown = [name for name in space if name not in models]
        if unknown:
            raise self._invalid(f"SPACE has {repr(unknown[0])[:64]}, which is no parameter of the optimizer", where)
        try:
            ranges = TypeAdapter(Space).validate_python(space)
        except ValidationError as error:
            problem = field_errors(error, space)[0]
            raise self._invalid(f"SPACE{problem.pointer}: {problem.detail}", where) from None
        for name, values in ranges.items():
            self._check_range(name, values, models[name], where)
        return {name: values.model_dump(mode="json", exclude_none=True) for name, values in ranges.items()}

    def _check_range(self, name: str, values: Range, annotation: Any, where: ast.expr) -> None:
        for value in values.extremes:
            try:
                TypeAdapter(annotation).validate_python(value, strict=True)
            except ValidationError as error:
                problem = field_errors(error, value)[0]
                raise self._invalid(f"SPACE/{name}: {repr(value)[:64]} is invalid: {problem.detail}", where) from None


def is_available(module: str) -> bool:
    """Whether uploaded code may import a module."""
    package = module.partition(".")[0]
    return package in sys.stdlib_module_names or package in PACKAGES


def _printable(text: str) -> str:
    """The text without characters that would change or hide what stands around it."""
    return "".join(character for character in text if character.isprintable() or character == "\n")
