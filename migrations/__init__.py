"""Alembic migrations; `kotrain migrate` runs them."""
