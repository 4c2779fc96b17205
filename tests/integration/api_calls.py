"""A job to submit over HTTP, and what the tests of the API look up."""

from sqlalchemy import func, select

from service.storage import database
from service.storage.tables import Job

JOB = {"dataset": "digits", "model": "mlp", "optimizer": "adam", "budget": {"epochs": 1}}


def stored_jobs():
    with database.transaction() as session:
        return session.scalar(select(func.count(Job.id)))


def problem(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    return document
