#!/usr/bin/env bash
# Two builds, the same bytes: the release built here and in a copy of the checkout at another path, compared file by file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z -co --exclude-standard | tar --null -T - -c | tar -C "$copy" -x
git -C "$copy" init -q
cargo run --locked --quiet --package xtask -- dist "$PWD/target/release-files"
(cd "$copy" && unset CARGO_TARGET_DIR && cargo run --locked --quiet --package xtask -- dist "$copy/out")
cmp target/release-files/SHA256SUMS "$copy/out/SHA256SUMS"
for file in target/release-files/*.tar.gz target/release-files/*.deb; do
  cmp "$file" "$copy/out/$(basename "$file")"
  printf '%s: the same bytes\n' "$(basename "$file")"
done
