"""Settings, read once from the environment (`KOTRAIN_*`)."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def default_home() -> Path:
    """Where an embedded installation keeps its database, files, logs and key."""
    return Path("/var/lib/kotrain") if os.geteuid() == 0 else Path.home() / ".kotrain"


class Settings(BaseSettings):
    """Every setting has a default that works on one machine; times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="KOTRAIN_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_home)
    data_dir: Path | None = Field(None, description="Where data sets lie; `home/data` where unset.")
    files: str | None = Field(
        None, description="Where checkpoints lie: a folder or an fsspec URL (s3://...); `home/files` where unset."
    )
    database_url: str | None = Field(None, description="postgresql+psycopg://...; the embedded server where unset.")
    broker_url: str | None = Field(None, description="redis://...; the embedded server where unset.")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    slots: int | None = Field(None, ge=1, le=256, description="Jobs at once on a worker; one per GPU or core if unset.")
    lease_seconds: float = Field(20.0, gt=0, description="A running job without a heartbeat for so long is taken back.")
    beat_seconds: float = Field(1.0, gt=0, description="Between heartbeats, which also carry the metrics.")
    maintenance_seconds: float = Field(5.0, gt=0, description="Between looks for stale jobs and idle slots.")
    cancel_seconds: float = Field(5.0, gt=0, description="What a job gets to stop by itself before it is killed.")
    drain_seconds: float = Field(10.0, gt=0, description="What jobs get to stop when the worker shuts down.")
    checkpoint_seconds: float = Field(
        60.0, gt=0, description="Between a running job's checkpoints; at the end of an epoch a tenth of it is enough."
    )
    stall_seconds: float = Field(600.0, gt=0, description="A job that says nothing for so long hangs and is killed.")
    keep_checkpoints_days: float = Field(1.0, ge=0, description="Checkpoints of a job that has ended are kept so long.")
    keep_points_days: float | None = Field(
        None, ge=0, description="Metric points of a job that has ended are kept so long; for ever where unset."
    )
    backoff_seconds: float = Field(5.0, ge=0, description="Wait after a job's first lost attempt; doubles each time.")
    job_memory_bytes: int | None = Field(
        None, ge=2**28, description="Memory a CPU job may allocate; an equal share of 80 % of the memory where unset."
    )
    max_comparison_jobs: int = Field(10_000, ge=1, le=100_000, description="Most runs of one comparison.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest request body.")
    max_upload_bytes: int = Field(2 * 2**30, ge=1024, description="Largest file that is registered as a data set.")
    max_dataset_bytes: int = Field(2 * 2**30, ge=1024, description="What its contents may take in memory, unpacked.")

    @field_validator("home")
    @classmethod
    def _own_folder(cls, home: Path) -> Path:
        """An empty name would mean the current folder, whatever lies there."""
        if home == Path():
            raise ValueError("must name a folder of its own, not the current one")
        return home

    @field_validator("database_url")
    @classmethod
    def _psycopg(cls, url: str | None) -> str | None:
        """The plain spellings mean psycopg too."""
        if url is None:
            return None
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
            raise ValueError("must look like postgresql+psycopg://USER:PASSWORD@HOST/DATABASE")
        return f"postgresql+psycopg://{rest}"

    @field_validator("broker_url")
    @classmethod
    def _redis(cls, url: str | None) -> str | None:
        scheme, separator, _ = (url or "").partition("://")
        if url is not None and (not separator or scheme not in {"redis", "rediss", "redis+socket"}):
            raise ValueError("must look like redis://:PASSWORD@HOST:6379/0")
        return url

    @property
    def data(self) -> Path:
        """The folder that data sets are looked for in."""
        return self.data_dir or self.home / "data"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings; `settings.cache_clear()` reads the environment anew."""
    return Settings()
