"""Alembic's entry: `service.storage.session.migrate` hands over an open connection, so that one transaction holds everything."""

from alembic import context

from service.storage.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
