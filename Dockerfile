# docker build --build-arg HMS_EXPORTER_REVISION=$(git rev-parse HEAD) -t hms-exporter:0.1.0 .
#
# The base is pinned by the exact version of its tag.  To pin its content too, append the digest that your registry shows:
#   docker buildx imagetools inspect python:3.13.11-slim-bookworm
ARG PYTHON_IMAGE=python:3.13.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /src
# What runs, and nothing beside it, goes into an environment without pip; wheels alone, so that nothing runs while it is installed.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/hms-exporter \
    && python -m pip --python /opt/hms-exporter/bin/python install --require-hashes --only-binary :all: --requirement requirements.lock \
    && python -m pip install --require-hashes --only-binary :all: --requirement requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && python -m pip --python /opt/hms-exporter/bin/python install --no-deps --no-index wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG HMS_EXPORTER_REVISION=unknown
LABEL org.opencontainers.image.title="hms-exporter" \
      org.opencontainers.image.description="Prometheus exporter for 100ms.live" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${HMS_EXPORTER_REVISION}"
COPY --from=build /opt/hms-exporter /opt/hms-exporter
RUN install -d -o 65532 -g 65532 -m 0700 /data
# TMPDIR: the root file system may be read-only; `demo` keeps its state in a temporary folder.
ENV PATH=/opt/hms-exporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/data \
    HMS_EXPORTER_REVISION=${HMS_EXPORTER_REVISION}
USER 65532:65532
# The state file is hms-exporter.db here unless storage.path says otherwise.
WORKDIR /data
VOLUME /data
EXPOSE 10100
STOPSIGNAL SIGTERM
# For the default address without TLS and passwords; with them, give a --health-cmd of your own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:10100/-/healthy', timeout=4)"]
ENTRYPOINT ["hms-exporter"]
