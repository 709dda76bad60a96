#!/usr/bin/env bash
# npm's fronts, typed as a person would: `npm start` and `npm run dev` serve, and after Ctrl-C nothing of them is left.
#
#   deploy/test/fronts.sh [start] [release] [dev]   start: in a checkout. release: in a release installed without a service, where it finds the
#                                           tools installed with it. Both are part of make test. dev also changes a source file, and needs a
#                                           debug build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=$PWD/.tools/node_modules/.bin:$PATH
scratch=$(mktemp -d)
chmod 755 "$scratch"
export MHNOS_WORKSPACE=$scratch/workspace MHNOS_RUNTIME_PORT=0
front=
end() {
  status=$?
  [ $status = 0 ] || cat "$scratch"/*.log >&2
  [ -z "$front" ] || kill -KILL -- "-$front" 2>/dev/null || true
  rm -rf "$scratch"
  exit $status
}
trap end EXIT
fail() { printf 'fronts: FAILED: %s\n' "$*" >&2; exit 1; }
# Without them nothing would be found to be left, and nothing to be served.
for program in pgrep curl; do command -v $program >/dev/null || fail "it takes $program"; done
within() { # within SECONDS COMMAND…: until it holds
  local deadline=$((SECONDS + $1))
  until "${@:2}"; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.2
  done
}
lines() { # lines NAME COUNT: it has said so often that it listens, and goes on for as long as it has not
  [ "$(grep -c '^listening on ' "$scratch/$1.log")" -lt "$2" ] || return 0
  kill -0 "$front" 2>/dev/null || fail "$1 has ended"
  return 1
}
members() { pgrep --session "$front"; }
nobody() { ! members >/dev/null; }

serve() { # serve NAME COMMAND…: until it listens; then says where
  local name=$1
  : >"$scratch/$name.log" # before anybody reads it
  # A session of its own stands for a terminal: Ctrl-C is SIGINT to everything in it (which shells keep from what runs beside them).
  env --default-signal=INT,QUIT setsid "${@:2}" >>"$scratch/$name.log" 2>&1 </dev/null &
  front=$!
  within 900 lines "$name" 1 || fail "$name does not listen"
  address=$(sed -n 's/^listening on //p' "$scratch/$name.log" | tail -1)
  curl -sf --noproxy '*' "$address/health" >"$scratch/health" || fail "$name: no /health at $address"
  printf '%s serves: %s\n' "$name" "$(cat "$scratch/health")"
}
interrupt() { # interrupt NAME
  kill -INT -- "-$front"
  within 60 nobody || fail "$1: left after Ctrl-C: $(members | xargs ps -o pid,args -p)"
  front=
  ! curl -sf --noproxy '*' -m 5 "$address/health" >/dev/null || fail "$1: still served after Ctrl-C"
  printf '%s: nothing is left after Ctrl-C\n' "$1"
}

release() { # release DIRECTORY: one, with stand-ins for the tools, installed in another directory beside it
  local tools=$1-prefix/lib/mhnos-runtime bin=$1-prefix/lib/mhnos-runtime/node_modules/.bin
  mkdir -p "$1/bin" "$1/deploy" "$bin"
  cp -r install.sh package.json "$1/"
  cp -r deploy/npm deploy/tools deploy/systemd "$1/deploy/"
  cp "${MHNOS_TEST_PROGRAM:-${CARGO_TARGET_DIR:-target}/release/mhnos-runtime}" "$1/bin/mhnos-runtime"
  printf '#!/bin/sh\necho v24.99.0\n' >"$bin/node"
  printf '#!/bin/sh\necho workerd 2026-11-99\n' >"$bin/workerd"
  chmod 755 "$bin"/*
  printf '%s base\n' "$(sha256sum deploy/tools/package-lock.json | cut -d' ' -f1)" >"$tools/.stamp"
  "$1/install.sh" --no-service --prefix "$1-prefix" >"$scratch/install.log" 2>&1 || fail "the installation: $(cat "$scratch/install.log")"
}
found() { # found WORD: the service has such a tool
  local said
  said=$(node deploy/test/check.mjs "${address/http/ws}" tools) || return 1
  printf '%s\n' "$said"
  grep -qF "$1" <<<"$said"
}

[ $# -gt 0 ] || set -- start release dev
for name in "$@"; do
  case $name in
    start)
      serve start npm start -- --log-level info
      interrupt start
      ;;
    release)
      release "$scratch/release"
      # As who has neither of them: those of the system would do.
      serve release env PATH=/usr/local/bin:/usr/bin:/bin "$(command -v node)" "$(command -v npm)" --prefix "$scratch/release" start -- --log-level info
      found 24.99.0 || fail "release: the installed tools are not found"
      interrupt release
      ;;
    dev)
      serve dev npm run dev
      touch crates/mhnos-runtime/src/main.rs
      within 900 lines dev 2 || fail "dev: a changed source file starts nothing anew"
      address=$(sed -n 's/^listening on //p' "$scratch/dev.log" | tail -1)
      curl -sf --noproxy '*' "$address/health" >/dev/null || fail "dev: no /health after a change"
      printf 'dev: built and started anew after a change\n'
      interrupt dev
      ;;
    *) fail "unknown: $name" ;;
  esac
done
