# Two images of one project: `service` (HTTP, no torch) and `worker` (training and scoring).
#   docker build --target service -t forgetting-service .
#   docker build --target worker  -t forgetting-worker  .

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY service service
COPY worker worker
RUN pip install -c constraints.txt ".[s3]"

FROM build AS build-worker
RUN pip install -c constraints.txt ".[s3,worker]"

FROM python:3.11-slim-bookworm AS runtime
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 FORGETTING_HOME=/var/lib/forgetting
RUN useradd --system --uid 10001 --create-home forgetting \
    && mkdir -p /var/lib/forgetting /artifacts /data /models \
    && chown -R 10001 /var/lib/forgetting /artifacts
USER 10001
WORKDIR /var/lib/forgetting

FROM runtime AS service
COPY --from=build /venv /venv
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["forgetting-service", "serve", "--no-worker", "--host", "0.0.0.0"]

FROM runtime AS worker
COPY --from=build-worker /venv /venv
# One Celery process per visible GPU, each with its own CUDA_VISIBLE_DEVICES.
CMD ["forgetting-service", "worker"]
