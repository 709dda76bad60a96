#!/usr/bin/env bash
# Runs a test of the installed service in a machine booted by systemd: machine.sh install|system|apparmor (make test-install…).
#
# MACHINE is a command that takes a directory and a command line, runs the command line as root in a copy of the directory, in
# a machine that may be changed at will, and ends as it did: "deploy/test/over-ssh root@HOST", or your own.
#
#   MHNOS_TEST_TOOLS=yes   sends Node.js and workerd along from .tools; otherwise the machine gets them through npm, which is tested too
#   MHNOS_TEST_IMAGE=FILE  sends a saved image (docker save mhnos-runtime:latest); `system` and `apparmor` then test containers as well, if the machine
#                          has Docker. An image that the machine has already is used as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
test=$1
: "${MACHINE:?says how to run a command in a booted machine, for example MACHINE='deploy/test/over-ssh root@192.0.2.7'}"

files=target/release-files
[ "${MHNOS_TEST_BUILD:-yes}" = no ] || cargo run --release --locked --quiet --package xtask -- dist
parcel=$(mktemp -d)
trap 'rm -rf "$parcel"' EXIT
tar -xzf "$files"/mhnos-runtime-*-linux.tar.gz -C "$parcel" --strip-components 1
cp "$files"/*.deb "$parcel/"
mkdir -p "$parcel/deploy/test" "$parcel/examples"
cp deploy/test/check.mjs deploy/test/in-*.sh "$parcel/deploy/test/"
cp -r examples/demo "$parcel/examples/"
cp docker-compose.yml docker-compose.strong.yml "$parcel/"
if [ "$test" = system ]; then # what is tested of control groups where they are of version 2
  cargo test --release --locked --no-run --message-format json --package mhnos-keeper --test keeper --package mhnos-sandbox --lib |
    sed -n 's/.*"executable":"\([^"]*\/deps\/[^"]*\)".*/\1/p' | while read -r program; do
      strip -o "$parcel/deploy/test/$(basename "$program" | sed 's/-[0-9a-f]*$//')" "$program"
    done
fi
if [ "${MHNOS_TEST_TOOLS:-no}" = yes ]; then
  deploy/tools/install run
  mkdir -p "$parcel/tools/node_modules/.bin" "$parcel/tools/node_modules/@cloudflare"
  cp -r .tools/node_modules/node-linux-* .tools/node_modules/npm "$parcel/tools/node_modules/"
  cp -r .tools/node_modules/@cloudflare/workerd-linux-* "$parcel/tools/node_modules/@cloudflare/"
  cp -d .tools/node_modules/.bin/{node,npm,npx,workerd} "$parcel/tools/node_modules/.bin/"
  printf '%s base\n' "$(sha256sum deploy/tools/package-lock.json | cut -d' ' -f1)" >"$parcel/tools/.stamp"
fi
if [ -n "${MHNOS_TEST_IMAGE:-}" ]; then cp "$MHNOS_TEST_IMAGE" "$parcel/image.tar"; fi
$MACHINE "$parcel" bash "deploy/test/in-$test.sh"
