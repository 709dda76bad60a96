# Sourced by the tests that run inside a machine: counting, waiting, the checks of check.mjs.
# shellcheck shell=bash
passed=0
tools=/usr/local/lib/mhnos-runtime
address=ws://127.0.0.1:18790

say() { printf '\n== %s\n' "$*"; }
trap 'fail "line $LINENO"' ERR
fail() {
  trap - ERR
  printf '%s: FAILED: %s\n' "$0" "$*" >&2
  journalctl --no-pager -n 40 -u mhnos-runtime >&2 || true
  exit 1
}
holds() { # holds WHAT COMMAND…
  "${@:2}" || fail "$1"
  printf '%s\n' "$1"
  passed=$((passed + 1))
}
absent() { [ ! -e "$1" ]; }
check() { # check CHECK…
  "$tools/node_modules/.bin/node" deploy/test/check.mjs "${check_address:-$address}" "$@" || fail "$*"
  passed=$((passed + 1))
}
within() { # within SECONDS COMMAND…: until it holds
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.5
  done
}
healthy() { hash -r; within "${1:-60}" mhnos-runtime health >/dev/null 2>&1; }
main_pid() { systemctl show -P MainPID mhnos-runtime; }
send_tools() { # those that came along, where the installation will look for them
  if [ -d tools ]; then
    mkdir -p "$1"
    cp -a tools/. "$1/"
  fi
}
