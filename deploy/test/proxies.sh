#!/usr/bin/env bash
# The reverse proxy examples of docs/operations.md, as they stand there, in front of the built service: `make test-proxies`. In a network and
# with a hosts file of its own, so that ports and names are those of the document and nothing outside notices.
#
#   MHNOS_TEST_PROGRAM=FILE  instead of target/release/mhnos-runtime
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ -z "${MHNOS_TEST_APART:-}" ]; then
  for program in nginx caddy openssl; do
    command -v $program >/dev/null || { printf 'test-proxies: %s is missing; for example: apt-get install %s\n' $program $program >&2; exit 1; }
  done
  user=()
  [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
  MHNOS_TEST_APART=yes exec unshare "${user[@]}" --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi

program=${MHNOS_TEST_PROGRAM:-target/release/mhnos-runtime}
tools=$PWD/.tools/node_modules/.bin
scratch=$(mktemp -d)
chmod 755 "$scratch"
passed=0
pids=()
end() {
  status=$?
  [ $status = 0 ] || tail -n 30 "$scratch"/*.log >&2
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$scratch"
  exit $status
}
trap end EXIT
fail() { printf 'test-proxies: FAILED: %s\n' "$*" >&2; exit 1; }
holds() { # holds WHAT COMMAND…
  "${@:2}" >"$scratch/said" 2>&1 || { cat "$scratch/said" >&2; fail "$1"; }
  printf '%s\n' "$1"
  passed=$((passed + 1))
}
within() { # within SECONDS COMMAND…
  local deadline=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.2
  done
}
fenced() { # fenced LANGUAGE: the example of the document
  awk -v fence="\`\`\`$1" '$0 == "```" { on = 0 } on { print } $0 == fence { on = 1 }' docs/operations.md |
    sed "s|/etc/ssl/run.example.org|$scratch/run.example.org|g"
}

ip link set lo up
printf '127.0.0.1 localhost run.example.org\n' >"$scratch/hosts"
mount --bind "$scratch/hosts" /etc/hosts
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=run.example.org \
  -addext subjectAltName=DNS:run.example.org,DNS:*.run.example.org \
  -keyout "$scratch/run.example.org.key" -out "$scratch/run.example.org.pem" 2>"$scratch/openssl.log"

token=$(openssl rand -hex 32)
printf 'laptop control %s\n' "$token" >"$scratch/tokens"
chmod 644 "$scratch/tokens" "$scratch/run.example.org.key"
install -d -m 777 "$scratch/workspace"
env -u MHNOS_RUNTIME_PORT MHNOS_AUTH_TOKEN_FILE="$scratch/tokens" MHNOS_ALLOWED_ORIGINS=https://run.example.org \
  MHNOS_PREVIEW_DOMAIN=run.example.org MHNOS_WORKSPACE="$scratch/workspace" \
  "$program" serve --path "$tools:/usr/local/bin:/usr/bin:/bin" >"$scratch/service.log" 2>&1 &
pids+=($!)
holds "the service is up" within 60 curl -sf http://127.0.0.1:18790/health

try() { # try NAME: what is promised of a service behind a proxy
  local curl=(curl -sS --cacert "$scratch/run.example.org.pem" --noproxy '*')
  holds "$1: /health through TLS" within 30 "${curl[@]}" -f https://run.example.org/health
  holds "$1: WebSocket, program, preview, its WebSocket" env NODE_EXTRA_CA_CERTS="$scratch/run.example.org.pem" TOKEN="$token" \
    "$tools/node" deploy/test/proxies.mjs wss://run.example.org/
  cat "$scratch/said"
  holds "$1: a strange page is refused" test 403 = "$("${curl[@]}" -o "$scratch/body" -w '%{http_code}' -H 'Origin: https://evil.example' \
    -H "Authorization: Bearer $token" https://run.example.org/metrics)"
  holds "$1: nothing without a token" test 401 = "$("${curl[@]}" -o "$scratch/body" -w '%{http_code}' https://run.example.org/metrics)"
}

{
  printf 'daemon off; pid %s/nginx.pid; error_log stderr; events {}\nhttp { access_log off;\n' "$scratch"
  for kind in client_body proxy fastcgi uwsgi scgi; do printf '%s_temp_path %s/%s;\n' $kind "$scratch" $kind; done
  fenced nginx
  printf '}\n'
} >"$scratch/nginx.conf"
[ "$(id -u)" != 0 ] || sed -i '1i user root;' "$scratch/nginx.conf"
holds "nginx accepts its file" nginx -t -e stderr -p "$scratch" -c "$scratch/nginx.conf"
nginx -e stderr -p "$scratch" -c "$scratch/nginx.conf" >"$scratch/nginx.log" 2>&1 &
front=$!
pids+=("$front")
try nginx
kill "$front"
wait "$front" || true

{
  printf '{\n  admin off\n  auto_https disable_redirects\n}\n'
  fenced caddyfile
} >"$scratch/Caddyfile"
export XDG_DATA_HOME=$scratch XDG_CONFIG_HOME=$scratch
holds "Caddy accepts its file" caddy validate --config "$scratch/Caddyfile" --adapter caddyfile
caddy run --config "$scratch/Caddyfile" --adapter caddyfile >"$scratch/caddy.log" 2>&1 &
pids+=($!)
try Caddy

printf '\ntest-proxies: %s checks passed\n' "$passed"
