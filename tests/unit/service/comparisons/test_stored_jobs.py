"""Validation of a query for `GET /v1/compare`; tests/integration/test_compare.py runs it on the database."""

import pytest
from pydantic import ValidationError

from service.comparisons.stored_jobs import CompareQuery, compare
from service.errors import Invalid
from service.specs.summary import Target


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dataset", "digitz", "unknown data set 'digitz' \\(did you mean 'digits'\\?\\); choose one of cifar10"),
        ("model", "mlpp", "unknown model 'mlpp'"),
        (
            "optimizer",
            ["adam", "adamx"],
            "unknown optimizer 'adamx' \\(did you mean 'adam'\\?\\); choose one of adagrad",
        ),
        ("group_by", "seed", "Input should be 'optimizer'"),
        ("target", float("nan"), "should be a finite number"),
        ("target", -1.0, "greater than or equal to 0"),
        ("tag", ["study"], "not of the form KEY:VALUE"),
        ("tag", ["study:"], "not of the form KEY:VALUE"),
        ("where", ["batch_size"], "not of the form PATH=VALUE"),
        ("where", ["batchsize=64"], "a spec has no 'batchsize'"),
        ("metrics", "val_loss", "Extra inputs are not permitted"),
    ],
)
def test_rejects_invalid_field(field, value, message):
    with pytest.raises(ValidationError, match=message) as caught:
        CompareQuery.model_validate({"dataset": "digits", "model": "mlp", field: value})
    assert caught.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        (CompareQuery(dataset="digits"), "model"),
        (CompareQuery(dataset="digits", model="mlp", metric="samples_per_second", target=0.9), "target"),
    ],
)
def test_rejects_impossible_query_before_reading_jobs(query, pointer):
    with pytest.raises(Invalid) as caught:
        compare(None, query)
    assert [error.pointer for error in caught.value.errors] == [pointer]


@pytest.mark.parametrize(
    ("metric", "value", "target"),
    [
        ("test_accuracy", 0.95, Target(metric="val_accuracy", value=0.95)),
        ("best_test_accuracy", 0.95, Target(metric="val_accuracy", value=0.95)),
        ("val_loss", 0.2, Target(metric="val_loss", value=0.2)),
        ("test_accuracy", None, None),
    ],
)
def test_target_is_on_validation_metric(metric, value, target):
    assert CompareQuery(dataset="digits", model="mlp", metric=metric, target=value).target_to_reach == target
