# rtsx with its extras gateway and s3, for processors. Client, scheduler and workers are this one image, because a campaign
# refuses workers whose versions differ from its client's. From the root of the repository:
#
#     docker build -f deploy/container/cpu.Dockerfile -t rtsx:0.1.0-cpu .
FROM python:3.12.11-slim-bookworm AS build

# An index with wheels of torch that leave CUDA out. Without one pip takes the default wheel: some gigabytes more, runs the same.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/rtsx
ENV PATH=/opt/rtsx/bin:$PATH

# What takes long comes first, because a change in rtsx itself then rebuilds the last layer only.
COPY deploy/container/constraints.txt /build/constraints.txt
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --constraint /build/constraints.txt --index-url "$TORCH_INDEX" torch torchvision; \
    fi
COPY pyproject.toml README.md LICENSE /build/
COPY rtsx /build/rtsx
RUN pip install --constraint /build/constraints.txt "/build[gateway,s3]" \
    && rtsx --version

FROM python:3.12.11-slim-bookworm

# The GDAL in rasterio's wheel wants the system's libexpat, which the slim base leaves out.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home rtsx
COPY --from=build /opt/rtsx /opt/rtsx
# Compiled kernels and fonts are cached in folders that the user may write to.
ENV PATH=/opt/rtsx/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/tmp/numba \
    MPLCONFIGDIR=/var/tmp/matplotlib \
    MALLOC_ARENA_MAX=1 \
    MALLOC_MMAP_MAX_=0 \
    MALLOC_TRIM_THRESHOLD_=1099511627776 \
    DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False \
    DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False \
    DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False
# The last six let a worker keep the memory that a pass of a network on a CPU frees, and not be paused for holding its peak, because
# handing it back and asking for it again can take longer than the pass: `python -m benchmarks allocator`.
# A library that the base lacks stops the build here, instead of the first cell on a cluster; so do torch and torchvision of two
# indexes, which pip installs together and which do not work together.
RUN python -c "import dask_gateway, numba, pyogrio, pyproj, rasterio, s3fs, segmentation_models_pytorch, torchvision"
# By number instead of by name, because Kubernetes can prove only of a number that it is not root.
USER 10001:10001
WORKDIR /home/rtsx
# What Kubernetes sends to end a pod: the signal of Ctrl-C, at which a campaign gives its cluster back and dask leaves in order.
STOPSIGNAL SIGINT
# No ENTRYPOINT, because dask-gateway gives `dask scheduler` and `dask worker` as arguments.
CMD ["rtsx", "--help"]
