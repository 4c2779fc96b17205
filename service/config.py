"""Settings, read once from the environment (`KOTRAIN_*`)."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.home import default_home

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>
ROUTES = frozenset(
    {
        "code",
        "comparisons",
        "dashboard",
        "data",
        "docs",
        "healthz",
        "jobs",
        "keys",
        "leaderboard",
        "openapi.json",
        "readyz",
    }
    | {"redoc", "v1"}
)
"""First parts of the paths of the API and the dashboard."""


class Settings(BaseSettings):
    """Defaults work on a single machine. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="KOTRAIN_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_home)
    user: str | None = Field(
        None, description="User that runs the processes of `kotrain up` if root starts it; one without a name if unset."
    )
    data_dir: Path | None = Field(None, description="Folder of data sets; `home/data` if unset.")
    files: str | None = Field(
        None, description="Folder or fsspec URL (s3://...) of checkpoints; `home/files` if unset."
    )
    database_url: str | None = Field(None, description="postgresql+psycopg://...; the embedded server if unset.")
    broker_url: str | None = Field(None, description="redis://...; the embedded server if unset.")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    path_prefix: str = Field(
        "",
        pattern=r"^(/[\w.~-]+)*$",
        description="Path below which a proxy serves kotrain, such as /kotrain; none if empty.",
    )
    hosts: str = Field(
        "", description="Names of this server besides its own, separated by commas; * accepts every name."
    )
    trusted_proxies: str = Field(
        "", description="Addresses or networks of proxies whose X-Forwarded-For is believed, separated by commas."
    )
    slots: int | None = Field(
        None, ge=1, le=256, description="Jobs that a worker runs at a time; one per GPU or core if unset."
    )
    lease_seconds: float = Field(20.0, gt=0, description="A job without a heartbeat for this time is requeued.")
    beat_seconds: float = Field(1.0, gt=0, description="Interval of heartbeats, which also carry the metrics.")
    maintenance_seconds: float = Field(5.0, gt=0, description="Interval of checks for stale jobs and idle slots.")
    cancel_seconds: float = Field(5.0, gt=0, description="Time a cancelled job gets to stop before it is killed.")
    drain_seconds: float = Field(10.0, gt=0, description="Time jobs get to stop when the worker shuts down.")
    checkpoint_seconds: float = Field(
        60.0, gt=0, description="Interval of a job's checkpoints; a tenth of it suffices at the end of an epoch."
    )
    stall_seconds: float = Field(600.0, gt=0, description="A job without output for this time is killed.")
    keep_checkpoints_days: float = Field(1.0, ge=0, description="How long to keep the checkpoints of ended jobs.")
    keep_points_days: float | None = Field(
        None, ge=0, description="How long to keep the metric points of ended jobs; forever if unset."
    )
    backoff_seconds: float = Field(5.0, ge=0, description="Delay after a job's first lost attempt; doubles each time.")
    job_memory_bytes: int | None = Field(
        None,
        ge=2**28,  # as service.jobs.requests.MIN_MEMORY_BYTES
        description="Memory that a CPU job may use beyond the training engine; an equal share of 80 % if unset.",
    )
    max_comparison_jobs: int = Field(10_000, ge=1, le=100_000, description="Maximum number of runs of a comparison.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Maximum size of a request body.")
    max_connections: int = Field(2048, ge=16, description="Maximum number of open connections of the API.")
    max_connections_per_address: int = Field(
        1024, ge=1, description="The same for each client address; a proxy in front of the API is one address."
    )
    max_streams_per_user: int = Field(50, ge=1, description="Maximum number of a user's open event streams.")
    max_upload_bytes: int = Field(2 * 2**30, ge=1024, description="Maximum size of an uploaded data set file.")
    max_dataset_bytes: int = Field(2 * 2**30, ge=1024, description="Maximum size of an uploaded data set in memory.")

    max_upload_pixels: int = Field(
        4_000_000_000, ge=1_000_000, description="Maximum number of pixels of an uploaded archive's images in all."
    )
    max_read_seconds: float = Field(120.0, ge=1, description="Maximum time to read an uploaded file.")
    max_uploads_per_user: int = Field(2, ge=1, description="Maximum number of a user's uploads at a time.")
    uploaded_code: Literal["confined", "trusted", "off"] = Field(
        "confined",
        description="Code that users upload: runs confined, or not at all; trusted: runs like kotrain's own code; off: "
        "is not accepted.",
    )
    min_free_bytes: int = Field(2**30, ge=0, description="Free space of the data folder below which nothing is stored.")

    @field_validator("home")
    @classmethod
    def _own_folder(cls, home: Path) -> Path:
        """An empty path would mean the current folder."""
        if home == Path():
            raise ValueError("must be a folder other than the current one")
        return home

    @field_validator("path_prefix")
    @classmethod
    def _no_route(cls, prefix: str) -> str:
        if prefix.split("/")[1:2] and prefix.split("/")[1] in ROUTES:
            raise ValueError(f"must not begin with a path of kotrain's own ({', '.join(sorted(ROUTES))})")
        return prefix

    @field_validator("database_url")
    @classmethod
    def _psycopg(cls, url: str | None) -> str | None:
        """Schemes without a driver mean psycopg."""
        if url is None:
            return None
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
            raise ValueError("must have the form postgresql+psycopg://USER:PASSWORD@HOST/DATABASE")
        return f"postgresql+psycopg://{rest}"

    @field_validator("broker_url")
    @classmethod
    def _redis(cls, url: str | None) -> str | None:
        """TLS verifies the server's certificate unless the address says otherwise, which is not Celery's default."""
        scheme, separator, rest = (url or "").partition("://")
        if url is not None and (not separator or scheme not in {"redis", "rediss", "redis+socket"}):
            raise ValueError("must have the form redis://:PASSWORD@HOST:6379/0")
        if url is not None and scheme == "rediss" and "ssl_cert_reqs=" not in rest:
            return f"{url}{'&' if '?' in rest else '?'}ssl_cert_reqs=required"
        return url

    @property
    def data(self) -> Path:
        """The folder of data sets."""
        return self.data_dir or self.home / "data"


def hide_memory() -> None:
    """Keep other processes of this user, such as training processes, from reading the passwords that this one knows.

    Neither its memory nor its environment can be read. Programs that it starts are not hidden. Linux only; no effect
    elsewhere.
    """
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is not None and prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings. `settings.cache_clear()` makes the next call read the environment again."""
    return Settings()
