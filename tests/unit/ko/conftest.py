from tests.one_thread import one_thread  # noqa: F401 (a fixture, at work wherever it is imported)
