"""Response bodies about uploaded code. Free of the database, because the SDK shares them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from service.specs.bodies import Output

CodeKind = Literal["optimizer"]
"""What uploaded code defines."""


Outcome = Literal["pass", "warning", "fail"]


class Check(Output):
    """What the conformance test found in one respect."""

    name: str
    outcome: Outcome
    text: str


class CodeView(Output):
    """A version of uploaded code."""

    name: str = Field(description="Name for jobs: owner, name and version, such as ada/mine@3f2a9c71.")
    kind: CodeKind
    title: str = Field(description="First line of its docstring.")
    owner: str
    sha256: str = Field(description="SHA-256 of the file.")
    outcome: Outcome | None = Field(description="Worst outcome of the conformance test; null until it has run.")
    created_at: datetime


class CodeDetail(CodeView):
    """A version of uploaded code, with its source."""

    file: str = Field(description="Name of the file.")
    source: str = Field(description="The file.")
    params: dict[str, Any] = Field(description="JSON Schema of the parameters.")
    space: dict[str, Any] = Field(description="Default search space.")
    checks: list[Check] | None = Field(description="Results of the conformance test; null until it has run.")
    needs: list[str] = Field(description="What it needs from the training loop, as for other optimizers.")


class CodeChange(Output):
    """How two versions differ."""

    old: str
    new: str
    diff: str = Field(description="Unified diff of the files; empty if they are equal.")
