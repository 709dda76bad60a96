#!/usr/bin/env bash
# npm's fronts, typed as a person would: `npm start` and `npm run dev` serve, and after Ctrl-C nothing of them is left.
#
#   deploy/test/fronts.sh [start] [dev]     start alone is part of make test; dev also changes a source file, and needs a debug build
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
within() { # within SECONDS COMMAND…: until it holds, or the front has ended
  local deadline=$((SECONDS + $1))
  until "${@:2}"; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.2
  done
}
lines() { [ "$(grep -c '^listening on ' "$scratch/$1.log")" -ge "$2" ]; }
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

[ $# -gt 0 ] || set -- start dev
for name in "$@"; do
  case $name in
    start)
      serve start npm start -- --log-level info
      interrupt start
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
