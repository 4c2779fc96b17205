"""Settings that are completed when they are read."""

import pytest

from service.config import Settings


@pytest.mark.parametrize(
    ("url", "completed"),
    [
        ("rediss://broker:6379/0", "rediss://broker:6379/0?ssl_cert_reqs=required"),
        ("rediss://broker/0?ssl_ca_certs=/ca.pem", "rediss://broker/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required"),
        ("rediss://broker/0?ssl_cert_reqs=none", "rediss://broker/0?ssl_cert_reqs=none"),
        ("redis://broker/0", "redis://broker/0"),
    ],
)
def test_certificate_of_broker_is_verified_by_all_clients(url: str, completed: str) -> None:
    """Celery accepts any certificate if the address does not say so."""
    assert Settings(broker_url=url).broker_url == completed
