# Build: docker build -t rag-server .
# Run:   docker compose -f docker-compose.prod.yml up -d
# Without the packages for traces: --build-arg REQUIREMENTS=requirements-prod.lock
# With the model of EMBEDDINGS=local: --build-arg LOCAL_MODEL=true
# Where the base must never move: --build-arg PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
ARG REQUIREMENTS=requirements-otel.lock
ARG LOCAL_MODEL=false
WORKDIR /build
COPY requirements-*.lock ./
# pip leaves when its work is done: nothing is installed into a server that runs.
RUN python -m venv /opt/venv \
    && if [ "$LOCAL_MODEL" = true ]; then set -- -r requirements-local.lock; fi \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
       -r "$REQUIREMENTS" -r requirements-postgres.lock -r requirements-entra.lock "$@" \
    && /opt/venv/bin/python -m pip uninstall --yes --quiet pip

FROM ${PYTHON_IMAGE}
ARG VERSION=unversioned
ARG REVISION=unknown
LABEL org.opencontainers.image.title="RAG Server" \
      org.opencontainers.image.description="Answers questions about a site's own documents" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VECTOR_DB_PATH=/data/vector_db \
    STATE_DIR=/data/state
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY . .
# Compiled here, because the file system may be read-only later. The folders exist and belong to the server's user, so
# that fresh volumes mounted there do too.
RUN python -m compileall -q --invalidation-mode unchecked-hash . \
    && rm -rf /usr/local/lib/python3.*/site-packages/pip* /usr/local/bin/pip* \
    && mkdir -p /data/vector_db /data/state \
    && chown -R 1001:1001 /data
USER 1001:1001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/health', timeout=4)"]
CMD ["python", "run_production.py"]
