# Resonate Audio as a server. Build and run:
#   docker build -t resonate .                                        CPU
#   docker build -t resonate --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .   CUDA
#   docker run -p 127.0.0.1:8123:8123 -e RESONATE_API_KEY=… -v resonate:/data \
#     --read-only --tmpfs /tmp resonate                               add --gpus all for CUDA
FROM debian:bookworm-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/resonate
ENV PATH=/opt/resonate/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY constraints.txt /src/
# torch first, in a layer of its own: it is large and changes seldom.
RUN pip install -U pip && pip install --extra-index-url "$TORCH_INDEX" -c /src/constraints.txt torch
COPY pyproject.toml README.md LICENSE /src/
COPY recipes /src/recipes
COPY resonate_audio /src/resonate_audio
RUN pip install -c /src/constraints.txt "/src[serve]"

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \
  && useradd --uid 10001 --home-dir /data --create-home resonate
COPY --from=build /opt/resonate /opt/resonate
# Everything that is written goes to /data; the rest of the file system may be read-only.
ENV PATH=/opt/resonate/bin:$PATH HOME=/data HF_HOME=/data/models \
  MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
USER 10001
VOLUME /data
WORKDIR /data
EXPOSE 8123
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python3", "-c", \
  "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8123/health', timeout=4)"]
ENTRYPOINT ["resonate"]
CMD ["serve", "--host", "0.0.0.0", "--home", "/data/home", "--preload", "--log", "json"]
