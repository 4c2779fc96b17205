"""Values of programs as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import torch

from kotrain import JobRequest
from kotrain.errors import InvalidValue
from kotrain.json_body import encode


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((np.int64(1), 1), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.array([1, 2]), [1, 2])),
        *((torch.tensor(2), 2), (torch.tensor([0.5]), [0.5]), (Decimal("0.001"), 0.001), (Decimal(3), 3)),
        *((Path("a/b"), "a/b"), (UUID(int=1), str(UUID(int=1))), ((1, 2), [1, 2])),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        ({"x": [np.int8(1)]}, {"x": [1]}),
    ],
)
def test_encodes(value: object, expected: object) -> None:
    assert json.loads(encode({"field": value})) == {"field": expected}


def test_encodes_models_inside() -> None:
    job = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}
    assert json.loads(encode({"job": JobRequest.model_validate(job)}))["job"]["dataset"]["name"] == "digits"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"optimizer": {"params": {"lr": object()}}}, "/optimizer/params/lr: a value of type object cannot be sent"),
        ({"tags": [{"a"}]}, "/tags/0: a value of type set cannot be sent"),
        ({"tags": {1: "a"}}, "/tags: the name of a field must be a text, not 1"),
        ({"seed": 1j}, "/seed: a value of type complex"),
    ],
)
def test_rejects_other_values_with_their_place(body: dict, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        encode(body)
    assert str(caught.value).startswith(message)
