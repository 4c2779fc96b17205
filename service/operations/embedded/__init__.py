"""PostgreSQL and Valkey from their wheels, for one machine without any set-up."""
