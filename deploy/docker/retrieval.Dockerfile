# The retrieval service, usable by itself, with its embedding model (all-MiniLM-L6-v2, a locked package among the requirements)
# inside: a started container needs no network. Built from the repository's root:
#   docker build --file deploy/docker/retrieval.Dockerfile --tag penstock/retrieval:dev .
#   docker run -p 127.0.0.1:8081:8081 -p 127.0.0.1:50051:50051 -v penstock-data:/data penstock/retrieval:dev
#
# BASE is an argument, so that a release pins a digest (python@sha256:...) and a site uses its own hardened Python.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Where pip looks, for a site with an index of its own. Not given: PyPI.
ARG PIP_INDEX_URL
# PyPI's torch is a CUDA build of some gigabytes; PyTorch's own index has the same version for the CPU.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
# What fsspec needs for a snapshot store that is no folder: s3fs for s3://, gcsfs for gs://, adlfs for az://.
ARG SNAPSHOT_DRIVERS=
RUN python -m venv /opt/penstock
ENV PATH=/opt/penstock/bin:${PATH}
WORKDIR /src
# The locked requirements come first: they change less often than the code, and these layers are the slow ones. The lock is
# complete, so nothing is resolved here, and a torch that is already there in the locked version stays.
COPY requirements/retrieval.txt requirements/
RUN pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX_URL}" "$(grep -oE '^torch==[0-9.]+' requirements/retrieval.txt)"
RUN pip install --no-cache-dir --no-deps -r requirements/retrieval.txt
RUN test -z "${SNAPSHOT_DRIVERS}" || pip install --no-cache-dir --constraint requirements/retrieval.txt ${SNAPSHOT_DRIVERS}
COPY LICENSE README.md pyproject.toml ./
COPY penstock penstock
COPY gateway gateway
COPY retrieval_svc retrieval_svc
COPY generation_svc generation_svc
RUN pip install --no-cache-dir --no-deps .

FROM ${BASE}
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="penstock-retrieval" \
      org.opencontainers.image.description="Penstock's retrieval service: embeds and searches collections" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Owned by the service's user, so that new volumes mounted here are too.
RUN install --directory --owner 65532 --group 65532 /data /snapshots
COPY --from=build /opt/penstock /opt/penstock
# PYTHONSAFEPATH keeps the working directory, which the service can write to, off the import path. Bytecode was written by
# the build; the root file system may be read-only. One OpenMP thread: FAISS and the embedder are fed by threads of their own,
# and teams of OpenMP threads that wait for each other cost more than they bring.
ENV PATH=/opt/penstock/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    OMP_NUM_THREADS=1 \
    HF_HOME=/data/hub \
    PENSTOCK_RETRIEVAL_GRPC_ADDRESS=0.0.0.0:50051 \
    PENSTOCK_RETRIEVAL_HTTP_ADDRESS=0.0.0.0:8081 \
    PENSTOCK_RETRIEVAL_DATA_DIR=/data
USER 65532:65532
WORKDIR /data
# The model in 8 bits, which takes half a minute. It lies where the service looks for it, so a new volume of Docker's begins with
# it; any other volume gets it at the first start, before the service is ready.
ENV PENSTOCK_RETRIEVAL_MODEL_CACHE_DIR=/data/models
RUN ["python", "-c", "from retrieval_svc.embedding.loading import load; from retrieval_svc.settings import RetrievalSettings; settings = RetrievalSettings(); load(settings.all_embedding_models[0].config, cache_dir=settings.resolved_model_cache_dir, threads=1)"]
EXPOSE 50051 8081
STOPSIGNAL SIGTERM
# Ready once every shard has caught up with the record, which may take long after a restore.
HEALTHCHECK --interval=5s --timeout=5s --retries=3 --start-period=300s \
    CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:8081/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "retrieval_svc"]
