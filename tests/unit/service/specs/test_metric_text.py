"""Metrics as text: leads with intervals, values and names."""

import pytest

from service.errors import Invalid
from service.specs.metric_text import Measure, sign


@pytest.mark.parametrize(
    ("lead", "interval", "text"),
    [
        (0.0061, (0.0002, 0.0121), "0.61 points (95 % interval 0.02 to 1.21)"),
        (0.0061, (0.0012, 0.0121), "0.6 points (95 % interval 0.1 to 1.2)"),
        (0.0045, (0.0015, 0.0076), "0.45 points (95 % interval 0.15 to 0.76)"),
        (0.02, None, "2.00 points"),
        (-0.3, (-0.4, -0.2), "-30.0 points (95 % interval -40.0 to -20.0)"),
    ],
)
def test_formats_lead_in_points(lead, interval, text):
    assert Measure("test_accuracy").lead(lead, interval) == text


def test_formats_other_metrics_in_their_unit():
    assert Measure("test_loss").lead(-0.12345, (-0.2, -0.05)) == "-0.123 (95 % interval -0.2 to -0.05)"
    assert Measure("samples_per_second").value(91575.8) == "91,576"
    assert Measure("val_accuracy").words == "validation accuracy"


def test_sign_is_direction_of_improvement():
    assert (sign("test_accuracy"), sign("samples_per_second"), sign("val_loss")) == (1, 1, -1)
    with pytest.raises(Invalid, match="neither higher nor lower"):
        sign("grad_norm")
