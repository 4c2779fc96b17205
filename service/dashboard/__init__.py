"""The dashboard: pages that use the public API and nothing else. `service.web.routes.dashboard` sends its files."""
