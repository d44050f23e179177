# The gateway. Built from the repository's root:
#   docker build --file deploy/docker/gateway.Dockerfile --tag penstock/gateway:dev .
#
# BASE is an argument, so that a release pins a digest (python@sha256:...) and a site uses its own hardened Python.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Where pip looks, for a site with an index of its own. Not given: PyPI.
ARG PIP_INDEX_URL
RUN python -m venv /opt/penstock
ENV PATH=/opt/penstock/bin:${PATH}
WORKDIR /src
# The locked requirements come first: they change less often than the code, and this layer is the slow one. The lock is
# complete, so nothing is resolved here.
COPY requirements/gateway.txt requirements/
RUN pip install --no-cache-dir --no-deps -r requirements/gateway.txt
COPY LICENSE README.md pyproject.toml ./
COPY penstock penstock
COPY gateway gateway
COPY retrieval_svc retrieval_svc
COPY generation_svc generation_svc
RUN pip install --no-cache-dir --no-deps .

FROM ${BASE}
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="penstock-gateway" \
      org.opencontainers.image.description="Penstock's gateway: runs retrieval-augmented flows over gRPC and HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Owned by the service's user, so that a new volume mounted here is too.
RUN install --directory --owner 65532 --group 65532 /var/lib/penstock
COPY --from=build /opt/penstock /opt/penstock
# PYTHONSAFEPATH keeps the working directory, which the service can write to, off the import path. Bytecode was written by
# the build; the root file system may be read-only.
ENV PATH=/opt/penstock/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    OMP_NUM_THREADS=1 \
    PENSTOCK_GATEWAY_GRPC_ADDRESS=0.0.0.0:50050 \
    PENSTOCK_GATEWAY_HTTP_ADDRESS=0.0.0.0:8080 \
    PENSTOCK_GATEWAY_DATA_DIR=/var/lib/penstock
USER 65532:65532
WORKDIR /var/lib/penstock
EXPOSE 50050 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "gateway"]
