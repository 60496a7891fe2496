# Two images: `docker build --target serve .` without PyTorch, `docker build --target train .` with everything.
#   docker run -p 8000:8000 -v ./export:/model IMAGE
#   docker run --gpus all -v .:/work IMAGE dvc repro
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 user
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY stages stages

FROM base AS train
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
# An index with wheels for one CUDA version, or for none (CPU); PyPI's wheels have CUDA.
ARG PIP_EXTRA_INDEX_URL=
RUN pip install --constraint constraints.txt '.[train]'
USER user
WORKDIR /work
CMD ["dvc", "repro"]

FROM base AS serve
RUN pip install --constraint constraints.txt '.[serve]'
USER user
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["python", "-m", "pipeline", "serve", "--host", "0.0.0.0", "--model", "/model/model.onnx"]
