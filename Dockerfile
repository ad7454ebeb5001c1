# An image that runs the main job: `docker build -t astro .`, then `docker run --name astro astro`.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# make runs the targets; git says in every record which commit it is of.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home astro && install --directory --owner astro --group astro /home/astro/astro
USER astro
WORKDIR /home/astro/astro

# What the environment depends on comes first, so that a change of code does not install it again.
COPY --chown=astro:astro Makefile pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=astro:astro scripts scripts

# Index of the torch wheels, e.g. the one that PyTorch documents for CPU builds. Empty: pip's own, whose torch has CUDA.
ARG TORCH_INDEX=""
RUN python -m venv .venv \
    && if [ -n "$TORCH_INDEX" ]; then \
         .venv/bin/pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch torchvision; \
       fi

COPY --chown=astro:astro . .
RUN PIP_NO_CACHE_DIR=1 make setup

CMD ["make", "run"]
