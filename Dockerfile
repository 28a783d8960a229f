# Build: docker build -t rag-server .
# Run:   docker compose -f docker-compose.prod.yml up -d

FROM python:3.12-slim AS packages
RUN python -m venv /opt/venv
COPY requirements-prod.txt .
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements-prod.txt

FROM python:3.12-slim
LABEL org.opencontainers.image.title="RAG Server" \
      org.opencontainers.image.description="Answers questions about a site's own documents" \
      org.opencontainers.image.licenses="MIT"
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY . .
# The folders exist and belong to the server's user, so that fresh volumes mounted there do too.
RUN mkdir -p /data/vector_db /data/state && chown -R 1001:1001 /data
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VECTOR_DB_PATH=/data/vector_db \
    STATE_DIR=/data/state
USER 1001:1001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/health', timeout=4)"]
CMD ["python", "run_production.py"]
