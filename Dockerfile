# MHNOS Runtime as a container image. Plain instructions only, so that the classic builder and BuildKit both build it.
#
#   docker build -t mhnos-runtime .
#   docker build -t mhnos-runtime:openclaw --build-arg OPENCLAW=true .
#   docker buildx build -t mhnos-runtime:arm64 --platform linux/arm64 .     # elsewhere than on arm64 too; the program is cross-compiled
#
# docs/operations.md says what each layer is for and how large it is, and how to run the image without Compose.

# On the machine that builds, whatever the image is for: the classic builder knows no BUILDPLATFORM, and takes "linux" for its own.
# hadolint ignore=DL3029
FROM --platform=${BUILDPLATFORM:-linux} rust:1.95-bookworm AS build
ARG TARGETARCH
ARG PROFILE=dist
WORKDIR /src
COPY . .
# hadolint ignore=DL3008,DL3059
RUN deploy/docker/build "$PROFILE" "${TARGETARCH:-$(dpkg --print-architecture)}" /out/usr/local/bin/mhnos-runtime

# Pinned by deploy/tools/package-lock.json, as everywhere. Node.js and npm are the base image's. Install scripts are never run.
# workerd goes without its symbols, which are a quarter of it.
FROM node:24-bookworm-slim AS tools
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
WORKDIR /tools
COPY deploy/tools/package.json deploy/tools/package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
 && install -D -s -m 755 node_modules/@cloudflare/workerd-linux-*/bin/workerd /out/usr/local/bin/workerd

# OpenClaw completes its installation when it is first run, which a read-only file system would not let it do later. What serves the
# tests alone goes, and what only compilers and debuggers read, but for its own files, which it knows by their sums.
# Without OpenClaw a directory all the same: of a layer with nothing in it the classic builder now and then says that it is missing.
FROM tools AS openclaw
ARG OPENCLAW=false
RUN mkdir -p /openclaw/opt/openclaw \
 && if [ "$OPENCLAW" = true ]; then \
      npm ci --ignore-scripts --no-audit --no-fund \
      && npm uninstall --no-save --ignore-scripts --no-audit --no-fund express http-proxy vite \
      && rm -rf node_modules/node-linux-* node_modules/npm node_modules/@cloudflare/workerd-linux-* node_modules/.bin \
      && find node_modules -type f ! -path '*/openclaw/dist/*' ! -path '*/typescript/*' -regex '.*\.\(map\|d\.[cm]?ts\)' -delete \
      && node node_modules/openclaw/openclaw.mjs --version \
      && mkdir -p /openclaw/usr/local/bin \
      && mv node_modules /openclaw/opt/openclaw/ \
      && ln -s /opt/openclaw/node_modules/openclaw/openclaw.mjs /openclaw/usr/local/bin/openclaw; \
    fi

FROM node:24-bookworm-slim
# What programs may use: Python with venv and pip, git, and certificates for both.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git python3 python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt \
      /usr/share/locale /usr/share/info /usr/share/lintian \
 && groupadd --gid 10001 mhnos \
 && useradd --uid 10001 --gid mhnos --home-dir /workspace --no-create-home --shell /usr/sbin/nologin mhnos \
 && install -d -m 755 -o mhnos -g mhnos /workspace
COPY --from=openclaw /openclaw/ /
COPY --from=tools /out/ /
COPY --from=build /out/ /

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="MHNOS Runtime" \
      org.opencontainers.image.description="Runs Node.js, Python, workerd, shells and OpenClaw for MHNOS Web OS, isolated." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="node:24-bookworm-slim"

VOLUME /workspace
EXPOSE 18790
# SIGTERM drains: programs get it too, with their grace period, and clients are told.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["mhnos-runtime", "health"]
# No USER: the keeper, process 1, gives root up before it starts anything, and uses it only to have programs run as another user
# than the service; a health check gives it up before it connects. Started as an ordinary user (`--user 10001`) it does without.
ENTRYPOINT ["mhnos-runtime"]
CMD ["serve"]
