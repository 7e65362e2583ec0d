# Three images from one file:
#   docker build --target train -t oncoshift-train .
#   oncoshift trains and tracks; mount params.yaml and data at /project, and name an MLflow server by
#   MLFLOW_TRACKING_URI, or keep the embedded store in a volume: its artifact paths are those of the container.
#
#   mlflow artifacts download --artifact-uri models:/oncoshift-kidney@champion --dst-path build/model
#   docker build --target serve -t oncoshift-serve .
#   serves the model in build/model, with that model's own requirements and nothing of the training stack. To follow
#   the registry instead: -e MODEL_URI=models:/oncoshift-kidney@champion -e MLFLOW_TRACKING_URI=http://mlflow:5000
#
#   docker build --target server -t oncoshift-server .
#   MLflow and Prefect as servers on PostgreSQL and S3, and Prefect's workers for Docker and Kubernetes; see compose.yaml.

ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS base
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
RUN useradd --create-home --uid 1000 oncoshift


FROM base AS server
WORKDIR /opt/oncoshift
COPY constraints.txt ./
# Names alone: constraints.txt has the versions that were tested together. torch is not among them.
# hadolint ignore=DL3013
RUN pip install --constraint constraints.txt \
    asyncpg boto3 fastapi "mlflow[auth]" prefect prefect-docker prefect-kubernetes psutil psycopg2-binary sqlalchemy \
    xxhash
COPY pyproject.toml README.md ./
COPY src ./src
# Alone: MLflow asks oncoshift.registry.roles who may promote, and that imports nothing else of what oncoshift needs.
RUN pip install --no-deps .
# Prefect writes the pages of its UI at the start, by itself beside its code, which is not writable.
ENV HEALTH_URL=http://127.0.0.1:5000/health \
    PREFECT_UI_STATIC_DIRECTORY=/tmp/prefect-ui
# A volume that is mounted here belongs to the server.
RUN install --directory --owner=oncoshift --group=oncoshift /prefect
USER 1000:1000
WORKDIR /home/oncoshift
EXPOSE 4200 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(os.environ['HEALTH_URL'])"]
CMD ["mlflow", "server", "--help"]


FROM base AS train
# git for DVC; the other two for OpenCV. Debian keeps only the latest version of a package, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/oncoshift
COPY constraints.txt pyproject.toml README.md ./
COPY src ./src
RUN pip install --constraint constraints.txt ".[platform]" psycopg2-binary
COPY --chown=oncoshift params.yaml dvc.yaml prefect.yaml /project/
COPY --chown=oncoshift .dvc/config /project/.dvc/config
COPY --chown=oncoshift presets /project/presets
COPY --chown=oncoshift flows /project/flows
RUN chown oncoshift /project /project/.dvc
ENV DVC_NO_ANALYTICS=true \
    ORT_DISABLE_TELEMETRY=1
USER 1000:1000
WORKDIR /project
ENTRYPOINT ["oncoshift"]
CMD ["--help"]


FROM base AS serve
# Requirements first: a new model with the same ones reuses this layer. A model predicts by ONNX Runtime; one from before
# needs torch, whose wheels bring gigabytes of CUDA, so the build stops: register it again.
# OpenCV comes without windows, for which Debian would install 350 MB of graphics drivers; so MLflow warns at the start
# that the model's own package is missing.
COPY build/model/requirements.txt /model/requirements.txt
RUN sed 's/^opencv-python==/opencv-python-headless==/' /model/requirements.txt > /tmp/requirements.txt \
    && pip install --requirement /tmp/requirements.txt \
    && python -c "import importlib.metadata as m, sys; \
found = sorted(d.name for d in m.distributions() if d.name.startswith(('nvidia', 'torch', 'triton'))); \
sys.exit('not for this image: ' + ', '.join(found) if found else 0)"
COPY build/model /model
ENV MODEL_URI=/model \
    PORT=8080 \
    ORT_DISABLE_TELEMETRY=1 \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
USER 1000:1000
WORKDIR /home/oncoshift
EXPOSE 8080
# MLflow as process 1 does not hear SIGTERM; at SIGINT it finishes its requests and stops.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/ping')"]
CMD ["sh", "-c", "exec mlflow models serve --model-uri \"$MODEL_URI\" --env-manager local --host 0.0.0.0 --port \"$PORT\""]
