# rtsx with its extras fast, gateway and s3, for NVIDIA GPUs. Client, scheduler and workers are this one image, because a campaign
# refuses workers whose versions differ from its client's. From the root of the repository:
#
#     docker build -f deploy/container/cuda.Dockerfile -t rtsx:0.1.0-cuda .
#
# The base holds no CUDA, because torch's wheel for Linux brings its own libraries; of the machine only the driver is needed,
# which the NVIDIA container runtime mounts.

# The base by tag, which may be another image tomorrow. One that has to be the same again: --build-arg BASE=python@sha256:...; how the
# digest is looked up is in deploy/README.md.
ARG BASE=python:3.12.11-slim-bookworm
FROM ${BASE} AS build

# An index with wheels of torch for another CUDA than the default one's, where the machines' driver is older.
# Its wheels have other hashes, so it takes constraints of its own; deploy/README.md has the command.
ARG TORCH_INDEX=""
ARG CONSTRAINTS=deploy/container/constraints.txt
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/rtsx
ENV PATH=/opt/rtsx/bin:$PATH

# What takes long comes first, because a change in rtsx itself then rebuilds the last layer only. Versions and hashes are those of the
# file, nothing is built from source, and nothing is fetched that the file does not name.
COPY ${CONSTRAINTS} /build/constraints.txt
RUN pip install --require-hashes --no-deps --only-binary :all: ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
      --requirement /build/constraints.txt
COPY pyproject.toml README.md LICENSE /build/
COPY configs /build/configs
COPY rtsx /build/rtsx
RUN pip install --no-index --no-deps --no-build-isolation "/build[fast,gateway,s3]" \
    && pip check \
    && rtsx --version \
    && python -c "import torch; assert torch.version.cuda, 'this torch knows no CUDA: choose another TORCH_INDEX'"

FROM ${BASE}

# The GDAL in rasterio's wheel wants the system's libexpat, which the slim base leaves out; Triton, for backend="compile", calls a
# C compiler when it runs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /tmp rtsx
COPY --from=build /opt/rtsx /opt/rtsx
# The first two are what the NVIDIA container runtime asks an image for.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PATH=/opt/rtsx/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba \
    MPLCONFIGDIR=/tmp/matplotlib \
    MALLOC_ARENA_MAX=1 \
    MALLOC_MMAP_MAX_=0 \
    MALLOC_TRIM_THRESHOLD_=1099511627776 \
    DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False \
    DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False \
    DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False
# The last six let a worker keep the memory that a pass of a network on a CPU frees, and not be paused for holding its peak, because
# handing it back and asking for it again can take longer than the pass: `python -m benchmarks allocator`.
# By number instead of by name, because Kubernetes can prove only of a number that it is not root.
USER 10001:10001
WORKDIR /tmp
# A library that the base lacks stops the build here, instead of the first cell on a cluster.
RUN python -c "import dask_gateway, numba, pyogrio, pyproj, rasterio, s3fs, segmentation_models_pytorch, torchvision"
# What Kubernetes sends to end a pod: the signal of Ctrl-C, at which a campaign gives its cluster back and dask leaves in order.
STOPSIGNAL SIGINT
# No ENTRYPOINT, because dask-gateway gives `dask scheduler` and `dask worker` as arguments.
CMD ["rtsx", "--help"]
