"""How tests close the connections of their process, while threads use them."""

import threading

from service.storage import database
from tests import connections


def test_connection_in_use_is_closed_when_it_is_returned(schema):
    taken, used, closing = [], threading.Event(), threading.Event()

    def work():
        with database.engine().connect() as connection:
            taken.append(connection.connection.driver_connection)
            used.set()
            closing.wait()

    thread = threading.Thread(target=work)
    thread.start()
    used.wait()
    timer = threading.Timer(0.2, closing.set)  # while close_all waits
    timer.start()
    connections.close_all()
    thread.join()
    timer.join()
    assert taken[0].closed
