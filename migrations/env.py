"""Alembic's entry: `service.db.migrate` hands over an open connection, so that one transaction holds everything."""

from alembic import context

from service.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
