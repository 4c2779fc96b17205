"""Alembic's entry point. The caller passes an open connection, so that one transaction covers every migration."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
