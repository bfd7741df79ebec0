# `make image` builds it with docker, podman or buildah, whichever is installed, and passes version, revision, source and date.
#
# The base is pinned by the exact version of its tag, for amd64, arm64 and others.  To pin its content too, append the digest that
# your registry shows:  docker buildx imagetools inspect python:3.13.11-slim-bookworm
ARG PYTHON_IMAGE=python:3.13.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /src
# Only the program and its dependencies go into an environment without pip; only wheels, so that no code runs during installation.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/hms-exporter \
    && python -m pip --python /opt/hms-exporter/bin/python install --no-compile --require-hashes --only-binary :all: --requirement requirements.lock \
    && python -m pip install --require-hashes --only-binary :all: --requirement requirements-build.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY grafana/dashboards grafana/dashboards
COPY prometheus/rules prometheus/rules
COPY exporter exporter
# Byte code is checked by the hash of its source, not by its time, so that the same code makes the same layer.
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && python -m pip --python /opt/hms-exporter/bin/python install --no-compile --no-deps --no-index wheels/*.whl \
    && /opt/hms-exporter/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/hms-exporter/lib

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/hms-exporter /opt/hms-exporter
RUN install -d -o 65532 -g 65532 -m 0700 /data
# TMPDIR: the root file system may be read-only; `demo` keeps its state in a temporary folder.
ENV PATH=/opt/hms-exporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/data
USER 65532:65532
# The state file is hms-exporter.db here unless storage.path says otherwise.
WORKDIR /data
VOLUME /data
EXPOSE 10100
STOPSIGNAL SIGTERM
# It uses the address, TLS and passwords of config.yaml in /data, or of the environment.  If flags change them, give a
# --health-cmd with the same flags.  It runs often, so that dependent services start soon; a check costs 0.2 s of CPU (--health-interval).
HEALTHCHECK --interval=5s --timeout=6s --start-period=15s CMD ["hms-exporter", "check", "--healthy"]
ENTRYPOINT ["hms-exporter"]
# Last, so that a new revision changes no layer.
ARG HMS_EXPORTER_VERSION=unknown
ARG HMS_EXPORTER_REVISION=unknown
ARG HMS_EXPORTER_SOURCE=
ARG HMS_EXPORTER_CREATED=
ENV HMS_EXPORTER_REVISION=${HMS_EXPORTER_REVISION}
LABEL org.opencontainers.image.title="hms-exporter" \
      org.opencontainers.image.description="Prometheus exporter for 100ms.live" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${HMS_EXPORTER_VERSION}" \
      org.opencontainers.image.revision="${HMS_EXPORTER_REVISION}" \
      org.opencontainers.image.source="${HMS_EXPORTER_SOURCE}" \
      org.opencontainers.image.created="${HMS_EXPORTER_CREATED}"
