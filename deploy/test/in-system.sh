#!/usr/bin/env bash
# Inside a machine booted by systemd with cgroup v2, as root: the unit with limits that the kernel holds, AppArmor, and, where there is
# Docker and an image, the container on this kernel.
set -euo pipefail
# shellcheck source=deploy/test/in-common.sh
. "$(dirname "$0")/in-common.sh"
uname -r

say "the machine"
holds "cgroup v2 with memory and pids" grep -q 'memory.*pids' /sys/fs/cgroup/cgroup.controllers

say "the unit"
send_tools $tools
./install.sh
holds "the service is up" healthy 180
systemd-analyze verify --man=no /etc/systemd/system/mhnos-runtime.service 2>&1 | tee /tmp/verify || true
holds "systemd-analyze verify has nothing to say" test ! -s /tmp/verify
systemd-analyze --no-pager security mhnos-runtime.service | tail -1
check tier T1
holds "limits are the kernel's" bash -c "'$tools/node_modules/.bin/node' deploy/test/check.mjs $address tier T1 | grep -qw cgroup"
echo MHNOS_MAX_MEMORY=128m >>/etc/mhnos/runtime.env
systemctl restart mhnos-runtime
holds "up with a limit of 128 MiB" healthy 180
check memory
holds "by the kernel, as the journal soon says" within 60 bash -c 'journalctl --no-pager -u mhnos-runtime | grep -q "killed by the OOM killer"'
check forks
holds "the service is well" healthy

say "AppArmor"
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then
  holds "the container's profile loads" apparmor_parser -r deploy/docker/apparmor
else
  fail "this machine has no AppArmor"
fi
systemctl stop mhnos-runtime

if command -v docker >/dev/null && { [ -e image.tar ] || [ -n "${MHNOS_TEST_IMAGE_THERE:-}" ] || [ -d /var/lib/docker/image ]; }; then
  say "containers"
  systemctl start docker
  [ ! -e image.tar ] || docker load -q -i image.tar
  alone() { # alone OPTIONS…
    docker rm -fv alone >/dev/null 2>&1 || true
    docker run -d --name alone --read-only --tmpfs /tmp:exec --cap-drop ALL --security-opt no-new-privileges --network host \
      -e MHNOS_MAX_MEMORY=128m "$@" mhnos-runtime:latest >/dev/null
    within 180 docker exec alone mhnos-runtime health || { docker logs alone; return 1; }
  }
  holds "with Docker's own profiles" alone --cap-add SETUID --cap-add SETGID
  check tier T3+
  check tools
  check memory
  holds "under Docker's AppArmor profile" grep -q docker-default "/proc/$(docker inspect -f '{{.State.Pid}}' alone)/attr/current"
  holds "with ours" alone --user 10001:10001 --security-opt seccomp=deploy/docker/seccomp.json \
    --security-opt apparmor=mhnos-runtime --security-opt systempaths=unconfined
  check tier T1
  check memory
  holds "under our AppArmor profile" grep -q mhnos-runtime "/proc/$(docker inspect -f '{{.State.Pid}}' alone)/attr/current"
  docker rm -fv alone >/dev/null

  say "Compose"
  export COMPOSE_PROJECT_NAME=system
  up() { # up COMPOSE…: the service as its files say
    "$@" up -d --no-build mhnos-runtime
    within 180 docker exec "$(docker ps -q --filter label=com.docker.compose.project=system)" mhnos-runtime health || { "$@" logs; return 1; }
  }
  holds "docker-compose up -d" up docker-compose
  check tier T3+
  check tools
  check forks
  docker-compose down -v
  if docker compose version >/dev/null 2>&1; then
    files=(docker compose -f docker-compose.yml -f docker-compose.strong.yml)
    holds "with the strong file" up "${files[@]}"
    check tier T1
    check tools
    holds "under our AppArmor profile" grep -q mhnos-runtime \
      "/proc/$(docker inspect -f '{{.State.Pid}}' "$(docker ps -q --filter label=com.docker.compose.project=system)")/attr/current"
    "${files[@]}" down -v
  else
    printf 'NOT TRIED: docker-compose.strong.yml, which takes Compose v2 (docker compose)\n'
  fi
fi

printf '\ntest-system: %s checks passed\n' "$passed"
