# Pacesetter's service:  docker build -t pacesetter .
#
# The base is pinned by tag, so a rebuild brings Debian's and Python's fixes. To build from exactly
# the same bytes each time, name its digest, which `docker images --digests python` prints:
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:... -t pacesetter .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE* ./
COPY service service
COPY client client
# An environment without a pip of its own, filled from outside: what runs has nothing to install.
# Both stages have it under one path, because the scripts in it name their interpreter by path.
RUN python -m venv --without-pip /opt/pacesetter \
    && pip --python /opt/pacesetter install --no-cache-dir '.[service,postgres]'

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Pacesetter" \
      org.opencontainers.image.description="Owns the learning rates of running trainings." \
      org.opencontainers.image.licenses="Apache-2.0"
# A number of its own, in no range that hosts give to people; a directory bound to /data in place of
# a volume must belong to it: chown 10001:10001.
RUN groupadd --gid 10001 pacesetter \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home \
        --shell /usr/sbin/nologin pacesetter \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /opt/pacesetter /opt/pacesetter
ENV PATH=/opt/pacesetter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PACESETTER_HOST=0.0.0.0 \
    PACESETTER_PORT=7070 \
    PACESETTER_DATABASE_URL=sqlite:////data/pacesetter.db \
    PACESETTER_LOG_FORMAT=json
# Any address and `localhost` are taken for its own. Where other containers ask it by its name in
# their network, say that name: --env PACESETTER_ALLOWED_HOSTS=pacesetter
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 7070
# The image has no curl. A proxy that the environment names must not be asked about ourselves.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ['PACESETTER_PORT']}/readyz\", timeout=4)"]
# In exec form and without a shell between, so that SIGTERM reaches the service and drains it.
ENTRYPOINT ["pacesetter"]
CMD ["serve"]
