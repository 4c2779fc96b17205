"""Metrics as text: leads with intervals, values and names."""

import pytest

from service.errors import Invalid
from service.specs.metric_text import Measure, sign


@pytest.mark.parametrize(
    ("lead", "interval", "text"),
    [
        (0.0061, (0.0002, 0.0121), "0.61 percentage points (95 % interval 0.02 to 1.21)"),
        (0.0061, (0.0012, 0.0121), "0.6 percentage points (95 % interval 0.1 to 1.2)"),
        (0.0045, (0.0015, 0.0076), "0.45 percentage points (95 % interval 0.15 to 0.76)"),
        (0.02, None, "2.00 percentage points"),
        (-0.3, (-0.4, -0.2), "-30.0 percentage points (95 % interval -40.0 to -20.0)"),
    ],
)
def test_formats_lead_in_percentage_points(lead, interval, text):
    assert Measure("test_accuracy").lead(lead, interval) == text


def test_formats_other_metrics_in_their_unit():
    loss, speed = Measure("test_loss"), Measure("samples_per_second")
    assert loss.lead(0.12345, (0.05, 0.2)) == "0.123 in test loss (lower is better; 95 % interval 0.05 to 0.2)"
    assert loss.lead(0.12345, None) == "0.123 in test loss (lower is better)"
    assert speed.lead(120.0, (100.0, 140.0)) == "120 samples per second (95 % interval 100 to 140)"
    assert speed.lead(120.0, None) == "120 samples per second"
    assert speed.value(91575.8) == "91,576"
    assert Measure("val_accuracy").words == "validation accuracy"


def test_sign_is_direction_of_improvement():
    assert (sign("test_accuracy"), sign("samples_per_second"), sign("val_loss")) == (1, 1, -1)
    with pytest.raises(Invalid, match="neither higher nor lower"):
        sign("grad_norm")


@pytest.mark.parametrize("name", ["train_loss", "train_accuracy"])
def test_metrics_of_single_batches_are_no_endpoints(name):
    with pytest.raises(
        Invalid, match=f"single batches, every log_every_steps.*choose val_{name[6:]} or test_{name[6:]}"
    ):
        sign(name)
