# The environment of every stage, for Kubernetes (docs/cluster.md) or any machine with containers,
# linux/amd64. What it is made of is named by digest, and so by you: no tag stays what it was.
#   docker build -t registry.example.org/wsss:latest \
#     --build-arg BASE_DIGEST=sha256:... --build-arg KUBECTL_SHA256=... .
#   docker push registry.example.org/wsss:latest
# BASE_DIGEST: `docker buildx imagetools inspect python:3.11-slim-bookworm` prints it.
# KUBECTL_SHA256: https://dl.k8s.io/release/VERSION/bin/linux/amd64/kubectl.sha256 holds it.
# PyTorch's wheels bring CUDA's libraries; the machine brings the driver.
ARG BASE_DIGEST
# Without a digest this is no image's name, and nothing is built.
FROM python:3.11-slim-bookworm@${BASE_DIGEST}

# tini hands signals to all processes of a container, so that trainings save before they are ended;
# git and tmux are for the people who work in it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl git tini tmux \
    && rm -rf /var/lib/apt/lists/*

# Of your cluster's version, give or take one minor version.
ARG KUBECTL=v1.33.4
ARG KUBECTL_SHA256
RUN : "${KUBECTL_SHA256:?name the SHA-256 of kubectl ${KUBECTL}: --build-arg KUBECTL_SHA256=...}" \
    && curl --fail --location --silent --show-error --output /usr/local/bin/kubectl \
        "https://dl.k8s.io/release/${KUBECTL}/bin/linux/amd64/kubectl" \
    && echo "${KUBECTL_SHA256}  /usr/local/bin/kubectl" | sha256sum --check --strict \
    && chmod 0755 /usr/local/bin/kubectl

WORKDIR /opt/wsss
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY wsss ./wsss
RUN pip install --no-cache-dir --require-hashes -r requirements.lock \
    && pip install --no-cache-dir --no-deps --no-build-isolation .

# Whom the project's folder belongs to: whoever this is must be able to write there.
ARG USER_ID=1000
RUN useradd --uid "${USER_ID}" --create-home wsss && install -d -o wsss /project

# Where the project's folder is mounted. Its code goes before the image's, so that an edit there
# needs no new image; new dependencies do.
WORKDIR /project
ENV PYTHONPATH=/project
USER wsss
ENTRYPOINT ["tini", "-g", "--"]
CMD ["bash"]
