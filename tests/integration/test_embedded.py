from __future__ import annotations

import psycopg
from kombu import Connection

from service.embedded import Embedded


def test_both_servers_answer(servers: Embedded) -> None:
    with psycopg.connect(servers.database_url.replace("+psycopg", "")) as connection:
        assert connection.info.server_version // 10_000 == 18
    with Connection(servers.broker_url) as broker:
        broker.SimpleQueue("bell").put("ring")
        assert broker.SimpleQueue("bell").get(timeout=5).payload == "ring"
