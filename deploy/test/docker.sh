#!/usr/bin/env bash
# What docs/operations.md promises of the container, tried with a real Docker engine (DOCKER_HOST is honoured) and the very commands
# it names: `make test-docker`. Uses ports 18790 and 18791 of this machine, and a Compose project of its own, of which it leaves nothing.
#
#   MHNOS_TEST_BUILD=no   uses the images there are, named mhnos-runtime:latest and :openclaw
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export COMPOSE_PROJECT_NAME=mhnos-test-$$
node=.tools/node_modules/.bin/node
runtime=ws://127.0.0.1:18790 openclaw=ws://127.0.0.1:18791
container=mhnos-test-$$-alone
passed=0

if docker-compose version >/dev/null 2>&1; then compose() { docker-compose "$@"; }; else compose() { docker compose "$@"; }; fi

compose2() { # Compose v2, whatever it is called here
  case "$(docker-compose version --short 2>/dev/null)" in [2-9]*) docker-compose "$@" ;; *) docker compose "$@" ;; esac
}

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'test-docker: FAILED: %s\n' "$*" >&2; exit 1; }
check() { # check ADDRESS CHECK…
  "$node" deploy/test/check.mjs "$@" || fail "$*"
  passed=$((passed + 1))
}
holds() { # holds WHAT COMMAND…
  "${@:2}" || fail "$1"
  printf '%s\n' "$1"
  passed=$((passed + 1))
}
clean() {
  status=$?
  if [ $status != 0 ]; then docker ps -a; compose --profile openclaw logs --tail 40 || true; fi
  docker rm -fv "$container" >/dev/null 2>&1 || true
  compose --profile openclaw down -v >/dev/null 2>&1 || true
}
trap clean EXIT

health_of() { docker inspect --format '{{.State.Health.Status}}' "$1"; }
healthy() { # healthy CONTAINER: by the image's own check, within a minute
  local deadline=$((SECONDS + 60))
  until [ "$(health_of "$1")" = healthy ]; do
    [ $SECONDS -lt $deadline ] || { docker logs --tail 40 "$1"; return 1; }
    sleep 1
  done
}
service() { compose --profile openclaw ps -q "$1"; }
checks_as() { # checks_as CONTAINER: user and capabilities of a health check while it waits for its answer, which is longer than one lasts
  docker exec "$1" python3 -c 'import re, socket, subprocess
listener = socket.create_server(("127.0.0.1", 0))
port = str(listener.getsockname()[1])
check = subprocess.Popen(["mhnos-runtime", "health", "--runtime-port", port], stderr=subprocess.DEVNULL)
connection, _ = listener.accept()
status = open(f"/proc/{check.pid}/status").read()
print(*re.findall(r"^(?:Uid|CapPrm):\s*(\w+)", status, re.M))
connection.close()
check.wait()'
}
address_of() { docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }
reaches() { # reaches CONTAINER HOST PORT: says whether a connection from in there comes about, as a program would make it
  docker exec -u 10001:10001 "$1" python3 -c 'import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    print("yes")
except OSError as error:
    print("no:", error)' "$2" "$3"
}
parted() { # parted CONTAINER PORT CONTAINER PORT: each reaches itself and, by address or name, not the other
  local here said
  for here in "$1 $2 $3 $4 mhnos-runtime-openclaw" "$3 $4 $1 $2 mhnos-runtime"; do
    # shellcheck disable=SC2086  # words
    set -- $here
    said=$(reaches "$1" "$(address_of "$1")" "$2")
    [ "$said" = yes ] || { printf 'the control: %s\n' "$said"; return 1; }
    for said in "$(reaches "$1" "$(address_of "$3")" "$4")" "$(reaches "$1" "$5" "$4")"; do
      case $said in no:*) ;; *) return 1 ;; esac
    done
  done
}
alone() { # alone OPTIONS…: the service without Compose
  docker rm -fv "$container" >/dev/null 2>&1 || true
  docker run -d --name "$container" --read-only --tmpfs /tmp:exec --cap-drop ALL --security-opt no-new-privileges \
    -p 127.0.0.1:18790:18790 -e MHNOS_HOST=0.0.0.0 -e MHNOS_TRUST_NETWORK=true -e MHNOS_MAX_MEMORY=256m "$@" mhnos-runtime:latest >/dev/null
  healthy "$container"
}

label() { docker image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$2\"}}" "mhnos-runtime:$1"; }
if [ "${MHNOS_TEST_BUILD:-yes}" = yes ]; then
  say "build"
  MHNOS_REVISION=$(git rev-parse HEAD) compose --profile openclaw build
  for one in latest openclaw; do holds "$one: the label is of this commit" test "$(label $one revision)" = "$(git rev-parse HEAD)"; done
fi
stand_in=$(mktemp -d) # that builds nothing
printf '#!/bin/sh\necho "$@"\n' >"$stand_in/docker"
chmod 755 "$stand_in/docker"
said=$(PATH=$stand_in:$PATH npm run --silent docker:build)
rm -r "$stand_in"
holds "npm run docker:build: docker $said" grep -q -- " --build-arg REVISION=$(git rev-parse HEAD)" <<<"$said"
docker images mhnos-runtime
holds "the version told is the program's" test "mhnos-runtime $(label latest version)" = "$(docker run --rm mhnos-runtime:latest --version)"

say "both services, as the README starts them"
export MHNOS_MAX_MEMORY=256m
compose up -d
holds "18790 is healthy" healthy "$(service mhnos-runtime)"
holds "/health from outside" curl -sf http://localhost:18790/health
unset MHNOS_MAX_MEMORY
compose --profile openclaw up -d mhnos-runtime-openclaw
holds "18791 is healthy" healthy "$(service mhnos-runtime-openclaw)"
published=$(docker port "$(service mhnos-runtime)"; docker port "$(service mhnos-runtime-openclaw)")
holds "published on loopback alone: $published" test -z "$(grep -v '127\.0\.0\.1' <<<"$published")"
holds "neither container reaches the other, and each itself" parted "$(service mhnos-runtime)" 18790 "$(service mhnos-runtime-openclaw)" 18791
limits='{{with .HostConfig}}{{.Memory}} {{.CpuQuota}} {{.PidsLimit}} {{.RestartPolicy.Name}} {{.LogConfig.Type}} {{index .LogConfig.Config "max-size"}}{{end}}'
for one in mhnos-runtime mhnos-runtime-openclaw; do
  holds "$one: limits, restart policy and log rotation of the Compose file" test \
    "$(docker inspect --format "$limits" "$(service $one)")" = "4294967296 400000 4096 unless-stopped json-file 10m"
  holds "$one: no capability but SETGID and SETUID, and no new privileges" test \
    "$(docker exec "$(service $one)" grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status | cut -f2 | xargs)" = "00000000000000c0 1"
  holds "$one: docker-compose logs says that it serves" test "$(compose --profile openclaw logs $one | grep -c '"serving"')" != 0
done

say "programs, tier, limits"
check $runtime tools
"$node" examples/demo/demo.mjs $runtime || fail "the demonstration on 18790"
passed=$((passed + 1))
check $runtime tier T3+
check $runtime memory
check $runtime forks
check $runtime slow beside
holds "with a program running no process of the container is root's but the one that starts things" test -z \
  "$(docker top "$(service mhnos-runtime)" -eo pid,uid,args | awk 'NR > 1 && $2 == 0 && !/mhnos-runtime (serve|health)/')"
holds "a health check, too, is neither root's nor the programs', and may do nothing" test "$(checks_as "$(service mhnos-runtime)")" = "9998 0000000000000000"
holds "the root file system is read-only" bash -c "! docker exec $(service mhnos-runtime) touch /usr/x 2>/dev/null"

say "a restart and down/up keep the workspace; a stop drains"
check $runtime write kept yes
check $runtime slow drained
begun=$SECONDS
compose restart mhnos-runtime
holds "it is healthy again, $((SECONDS - begun)) s after the stop began" healthy "$(service mhnos-runtime)"
check $runtime read kept yes
check $runtime read drained $'orderly\n'

say "a token, as docs/operations.md has it"
secrets=$(mktemp -d)/secrets
mkdir -m 755 "$secrets"
# The text stands there; only where its file is differs here.
# shellcheck disable=SC2016  # no expansions
sed -n '/^```yaml$/,/^```$/{/^```/!p}' docs/operations.md | sed "s|./secrets:|$secrets:|" >"$secrets.yml"
token=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
printf 'laptop control %s\n' "$token" >"$secrets/tokens"
chown 10001:0 "$secrets/tokens" && chmod 0440 "$secrets/tokens"
with_token() { compose -f docker-compose.yml -f "$secrets.yml" "$@"; }
with_token up -d mhnos-runtime
holds "it is healthy" healthy "$(service mhnos-runtime)"
answer() { curl -s -o /dev/null -w '%{http_code}' "$@" http://localhost:18790/metrics; }
holds "without the token nothing is told" test "$(answer)" = 401
holds "with it it is" test "$(answer -H "Authorization: Bearer $token")" = 200
rm -rf "$(dirname "$secrets")"

say "OpenClaw"
check $openclaw tools openclaw
check $openclaw gateway
check $openclaw running 1
check $openclaw write .openclaw/kept yes
begun=$SECONDS
compose --profile openclaw stop mhnos-runtime-openclaw
stopped=$(docker inspect --format '{{.State.ExitCode}}' "$(docker ps -aq --filter name="${COMPOSE_PROJECT_NAME}.*openclaw")")
holds "drained in $((SECONDS - begun)) s, exit status $stopped" test "$stopped" = 0
compose --profile openclaw down
compose --profile openclaw up -d mhnos-runtime-openclaw
holds "18791 is healthy again" healthy "$(service mhnos-runtime-openclaw)"
check $openclaw read .openclaw/kept yes
check $openclaw gateway

say "down -v leaves nothing"
compose --profile openclaw down -v
left=$(docker ps -aq --filter label=com.docker.compose.project="$COMPOSE_PROJECT_NAME"
  docker volume ls -q --filter label=com.docker.compose.project="$COMPOSE_PROJECT_NAME"
  docker network ls -q --filter label=com.docker.compose.project="$COMPOSE_PROJECT_NAME")
holds "no container, volume or network" test -z "$left"

say "the strong file: T1"
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] && [ -z "${MHNOS_APPARMOR:-}" ]; then
  apparmor_parser -r deploy/docker/apparmor || fail "the AppArmor profile must be loaded by root before"
fi
if compose2 version >/dev/null 2>&1; then
  strong() { MHNOS_SANDBOX_MIN_TIER=T1 compose2 -f docker-compose.yml -f docker-compose.strong.yml --profile openclaw "$@"; }
  MHNOS_MAX_MEMORY=256m strong up -d mhnos-runtime
  strong up -d mhnos-runtime-openclaw
  for one in mhnos-runtime mhnos-runtime-openclaw; do holds "$one is healthy" healthy "$(strong ps -q $one)"; done
  holds "neither container reaches the other, and each itself" parted "$(strong ps -q mhnos-runtime)" 18790 "$(strong ps -q mhnos-runtime-openclaw)" 18791
  check $runtime tier T1
  check $runtime tools
  check $runtime memory
  check $runtime forks
  check $openclaw tier T1
  check $openclaw gateway
  holds "no process of the container is root's" test -z \
    "$(docker top "$(strong ps -q mhnos-runtime)" -eo pid,uid,args | awk 'NR > 1 && $2 == 0')"
  strong down -v
else
  printf 'NOT TRIED: docker-compose.strong.yml itself, which takes Compose v2 (docker compose); its options by docker run follow\n'
fi
strong=(--user 10001:10001 --security-opt "seccomp=deploy/docker/seccomp.json" --security-opt "apparmor=${MHNOS_APPARMOR:-mhnos-runtime}")
alone "${strong[@]}" --security-opt systempaths=unconfined -e MHNOS_SANDBOX_MIN_TIER=T1
check $runtime tier T1
check $runtime memory
"$node" examples/demo/demo.mjs $runtime || fail "the demonstration in T1"
passed=$((passed + 1))
alone "${strong[@]}"
check $runtime tier T2

say "an ordinary user, no capability: T3"
alone --user 10001:10001
check $runtime tier T3
check $runtime memory
check $runtime forks
holds "it stops in order" test "$(docker stop -t 40 "$container" >/dev/null; docker inspect --format '{{.State.ExitCode}}' "$container")" = 0

printf '\nengine %s, Linux %s' "$(docker version --format '{{.Server.Version}}')" "$(uname -r)"
printf '\ntest-docker: %s checks passed\n' "$passed"
