"""What a file declares, read from its syntax tree."""

import pytest

from service.code.reader import declare
from service.code.source import MAX_BYTES, PACKAGES, Source
from service.errors import Invalid

HEAD = "import torch\nfrom torch.optim import SGD, Optimizer\n"
CLASS = HEAD + "class Mine(Optimizer):\n    def __init__(self, params, {}): ...\n"


def declaration(text):
    return Source("mine.py", text).declare("ada/mine@00000000")


def parameter(text):
    (parsed,) = declaration(CLASS.format(text)).parameters
    return parsed


@pytest.mark.parametrize(
    ("text", "kind", "default", "is_optional"),
    [
        ("lr: float = 0.1", "number", 0.1, False),
        ("lr: float = 1", "number", 1.0, False),
        ("shift=-1e-3", "number", -0.001, False),
        ("k: int = 5", "integer", 5, False),
        ("k=5", "integer", 5, False),
        ("flag: bool = False", "boolean", False, False),
        ("flag=True", "boolean", True, False),
        ("clip: float | None = None", "number", None, True),
        ("clip: 'float | None' = None", "number", None, True),
        ("clip: Optional[float] = 2", "number", 2.0, True),
        ("clip: typing.Union[float, torch.Tensor, None] = None", "number", None, True),
        ("betas: tuple[float, float] = (0.9, 0.99)", "numbers", [0.9, 0.99], False),
        ("betas=[0.9, 1]", "numbers", [0.9, 1.0], False),
        ("mode: str = 'a'", "string", "a", False),
        ("mode: Literal['a', 'b'] = 'a'", "string", "a", False),
        ("x: Annotated[float, 'about'] = 1", "number", 1.0, False),
        ("*, lr=0.1", "number", 0.1, False),
    ],
)
def test_reads_type_and_default(text, kind, default, is_optional):
    parsed = parameter(text)
    assert (parsed.type, parsed.default, parsed.is_optional) == (kind, default, is_optional)


def test_reads_choices_constants_space_needs_and_title():
    declared = declaration(
        HEAD
        + "RATE = 0.3\nSPACE = {'lr': {'log_uniform': [0.01, 1.0]}}\nNEEDS = ['closure']\n"
        + "class Mine(torch.optim.SGD):\n    '''My method.\n\n    Args:\n        lr: The rate. More.\n    '''\n"
        + "    def __init__(self, params, lr: float = RATE, mode: Literal['a', 'b'] = 'b'): ...\n"
        + "    def train(self): ...\n    def eval(self): ...\n"
    )
    assert declared.title == "My method"
    assert declared.needs == ("closure", "modes")
    assert declared.space == {"lr": {"log_uniform": [0.01, 1.0]}}
    assert (declared.parameters[0].default, declared.parameters[0].description) == (0.3, "The rate")
    assert declared.parameters[1].choices == ("a", "b")
    assert declared.params_model().model_dump() == {"lr": 0.3, "mode": "b"}


def test_finds_the_most_derived_class_and_its_inherited_constructor():
    declared = declaration(CLASS.format("lr=0.1") + "class Other(Mine):\n    pass\nclass Helper: ...\n")
    assert declared.class_name == "Other"
    assert [parameter.name for parameter in declared.parameters] == ["lr"]


def test_a_factory_gets_the_model():
    declared = declaration("def make(model, lr: float = 0.1):\n    return 1\n")
    assert (declared.class_name, declared.needs, declared.base_of) == ("make", ("model",), ("bimaxwell",))


TWO = HEAD + "".join(f"class {name}(SGD):\n    def __init__(self, params, lr=0.1): ...\n" for name in "AB")
INVALID = {
    "x =": "line 1: is not valid Python",
    "return 1": "line 1: is not valid Python",
    "x = 1": "defines no optimizer: write a subclass of torch.optim.Optimizer",
    "class Optimizer: ...\nclass Mine(Optimizer):\n    def __init__(self, params): ...": "defines no optimizer",
    "import requests\n": "line 1: imports requests, which is not available",
    "import torch, pandas": "imports pandas, which is not available",
    "from . import parts": "imports from its own package",
    TWO: 'defines 2 optimizers (A and B); name one: OPTIMIZER = "NAME"',
    TWO + "OPTIMIZER = 'C'": "OPTIMIZER is 'C', but the file defines A and B",
    HEAD + "class Mine(SGD): ...": "line 3: Mine has no __init__",
    CLASS.format("lr"): "line 4: parameter 'lr' of Mine has no default",
    CLASS.format("*args"): "*args of Mine hides parameters",
    CLASS.format("**options"): "**options of Mine hides parameters",
    CLASS.format("lr=1e-3 * 2"): "the default of 'lr' must be a literal",
    CLASS.format("lr=1e999"): "the default of 'lr' must be a finite number",
    CLASS.format("lr={'a': 1}"): "the default of 'lr' must be a finite number",
    CLASS.format("lr=-1.0"): "the default of 'lr' is invalid: input should be greater than 0",
    HEAD + "class A(B, SGD): ...\nclass B(A): ...": "are derived from each other",
    CLASS.format("lr=None"): "the type of 'lr' is unknown",
    CLASS.format("lr: float = 'x'"): "the default of 'lr' is 'x', which is no number",
    CLASS.format("mode: Literal['a'] = 'b'"): "the default of 'mode' is not one of its values",
    CLASS.format("betas=(1, 'x')"): "the default of 'betas' must be a tuple of numbers",
    CLASS.format("_hidden=1"): "'_hidden' cannot be the name of a parameter",
    CLASS.format("lr=0.1") + "SPACE = 1": "SPACE must be a dictionary",
    CLASS.format("lr=0.1") + "SPACE = {'eps': {'choice': [1]}}": "SPACE has 'eps', which is no parameter",
    CLASS.format("lr=0.1") + "SPACE = {'lr': {'uniform': [1, 0]}}": "the first value must be less than the second",
    CLASS.format("lr=0.1") + "SPACE = {'lr': {'uniform': [-1, 1]}}": "SPACE/lr: -1.0 is invalid",
    CLASS.format("lr=0.1") + "SPACE = dict(lr=1)": "SPACE must be a literal",
    CLASS.format("lr=0.1") + "NEEDS = ['model']": "NEEDS must be a list with some of closure",
    "def make(): ...": "make must accept model as its first parameter",
    "x = " + "-" * 50_000 + "1": "nested too deeply",
    "def make(model, x: '" + "a|" * 50_000 + "a' = 1): ...": "nested too deeply",
    "x = 'a\x00b'": "null bytes",
}


@pytest.mark.parametrize(("text", "message"), INVALID.items(), ids=range(len(INVALID)))
def test_invalid_files_are_refused_with_their_line(text, message):
    with pytest.raises(Invalid) as refusal:
        declaration(text)
    assert message in refusal.value.detail
    assert refusal.value.detail.startswith("mine.py")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n", "mine.py is empty"),
        (b"\xff\xfe", "is not text in UTF-8: byte 0"),
        (b"#" * (MAX_BYTES + 1), "has 262,145 bytes; at most 262,144"),
        (b"import pandas", "imports pandas"),
    ],
)
def test_reader_refuses_content(content, message):
    with pytest.raises(Invalid, match=message):
        declare("mine.py", content, "ada/mine@00000000")


def test_reads_optional_imports_and_a_byte_order_mark():
    text = "try:\n    import pandas\nexcept ImportError:\n    pass\n" + CLASS.format("lr=0.1")
    assert declare("mine.py", b"\xef\xbb\xbf" + text.encode(), "ada/mine@00000000").class_name == "Mine"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_installed(package):
    __import__(package)
