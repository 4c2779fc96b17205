"""PostgreSQL and Valkey from their wheels, for a single machine without any setup."""
