# Where the tests of the tiers run under Docker's own profiles: `make test-tiers`. What the tests' programs use, and nothing of the checkout.
FROM rust:1.95-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends git python3 python3-venv procps \
 && rm -rf /var/lib/apt/lists/*
