# Sourced by the tests that run inside a machine, after in-common.sh: the container on this kernel and under its AppArmor, where there is
# Docker and an image.
# shellcheck shell=bash

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
  # Ubuntu 24.04 has one that does not start, and another.
  if docker-compose version >/dev/null 2>&1; then compose=(docker-compose); else compose=(docker compose); fi
  export COMPOSE_PROJECT_NAME=system
  up() { # up COMPOSE…: the service as its files say
    "$@" up -d --no-build mhnos-runtime
    within 180 docker exec "$(docker ps -q --filter label=com.docker.compose.project=system)" mhnos-runtime health || { "$@" logs; return 1; }
  }
  holds "${compose[*]} up -d" up "${compose[@]}"
  check tier T3+
  check tools
  check forks
  "${compose[@]}" down -v
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
else
  printf 'NOT TRIED: containers, which take Docker and an image\n'
fi
