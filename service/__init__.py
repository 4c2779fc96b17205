"""The service: the HTTP API and everything that talks to Postgres. Torch-free."""
