# The environment of every stage, for Kubernetes (docs/cluster.md) or any machine with containers:
#   docker build -t registry.example.org/wsss:latest . && docker push registry.example.org/wsss:latest
# PyTorch's wheels bring CUDA's libraries; the machine brings the driver.
FROM python:3.11-slim-bookworm

# tini hands signals to all processes of a container, so that trainings save before they are ended;
# git and tmux are for the people who work in it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl git tini tmux \
    && rm -rf /var/lib/apt/lists/*

# Of your cluster's version, give or take one minor version.
ARG KUBECTL=v1.33.4
RUN curl --fail --location --silent --show-error --output /usr/local/bin/kubectl \
        "https://dl.k8s.io/release/${KUBECTL}/bin/linux/$(dpkg --print-architecture)/kubectl" \
    && chmod +x /usr/local/bin/kubectl

WORKDIR /opt/wsss
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY wsss ./wsss
RUN pip install --no-cache-dir -c constraints.txt '.[cluster,clip]'

# Where the project's folder is mounted. Its code goes before the image's, so that an edit there
# needs no new image; new dependencies do.
WORKDIR /project
ENV PYTHONPATH=/project
ENTRYPOINT ["tini", "-g", "--"]
CMD ["bash"]
