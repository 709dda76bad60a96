#!/usr/bin/env bash
# What a machine of another architecture can show of aarch64: `make test-arm64`. Everything compiles; the tests of the crates run under QEMU's
# user emulation; the image for linux/arm64 is built, and its programs start. Needs the Rust target, gcc-aarch64-linux-gnu,
# libc6-dev-arm64-cross, qemu-user-static registered with binfmt_misc, and for the image a Docker engine with BuildKit.
#
# The emulation has no system call filters, and its own threads are in every process, which the keeper refuses to fork: the service itself
# takes an arm64 kernel, in a whole emulated machine if need be, where the tests are those of everywhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu # not an option of the runner: tests start programs, too

# What the emulation answers with "not implemented": sock_diag, openat2, TCGETS2.
lacking=(listening:: maker::tests::who_connects no_path_surprises killed_while_reading_a_terminal)

skip=()
for one in "${lacking[@]}"; do skip+=(--skip "$one"); done
cargo check --locked --workspace --all-targets --target $target
for crate in mhnos-protocol mhnos-sandbox mhnos-workspace mhnos-network mhnos-runtimes mhnos-process; do
  cargo test --locked --target $target --package $crate --lib -- "${skip[@]}"
done
cargo test --locked --target $target --package mhnos-protocol --test it
cargo test --locked --target $target --package mhnos-runtimes --test recipes

image=mhnos-runtime:arm64-test
DOCKER_BUILDKIT=1 docker build --platform linux/arm64 -t $image .
DOCKER_BUILDKIT=1 docker build --platform linux/arm64 -t $image-openclaw --build-arg OPENCLAW=true .
says() { # says WHAT PROGRAM ARGUMENT…: of the image, as its user
  local said
  said=$(docker run --rm --network none --platform linux/arm64 --read-only --tmpfs /tmp:exec --cap-drop ALL --user 10001:10001 --entrypoint "$2" $image "${@:3}")
  printf '%s: %s\n' "$2" "$said"
  [[ $said == $1* ]] || { printf 'test-arm64: FAILED: not %s\n' "$1" >&2; exit 1; }
}
says "mhnos-runtime" mhnos-runtime --version
says arm64 node -p process.arch
says aarch64 python3 -c 'import platform, sqlite3, ssl; print(platform.machine())'
says workerd workerd --version
says "git version" git --version
says pip pip --version
image+=-openclaw
says arm64 node -p process.arch
says OpenClaw openclaw --version
