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

# It runs on Ubuntu 22.04, whose C library is 2.35, and its package says what it needs.
program=$(ls target/release-files/mhnos-runtime-*-linux/bin/mhnos-runtime)
newest=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
newest=${newest#GLIBC_}
[ "$(printf '%s\n2.35\n' "$newest" | sort -V | tail -1)" = 2.35 ] || {
  echo "the program needs glibc $newest, and Ubuntu 22.04 has 2.35: build the release on Debian 12, or on that" >&2; exit 1; }
depends=$(dpkg-deb -f target/release-files/*.deb Depends)
[[ $depends == *"libc6 (>= $newest)"* ]] || { echo "the package says otherwise than glibc $newest: $depends" >&2; exit 1; }
printf 'needs glibc %s; the package says so\n' "$newest"
