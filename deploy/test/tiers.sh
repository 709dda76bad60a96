#!/usr/bin/env bash
# The tests of the tiers T3+ and T3 inside a container, under the seccomp and AppArmor profiles that Docker gives every container:
# abuse, hostile programs, walls, kills, memory, ports that are told, ordinary work. Needs a Docker engine; builds the tests here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=deploy/test/in-counted.sh
. deploy/test/in-counted.sh
here=$(pwd -P)
deploy/tools/install test
programs=$(cargo test --locked --no-run --message-format json -p mhnos-keeper --test keeper -p mhnos-runtime --test service |
  sed -n 's/.*"executable":"\([^"]*\/deps\/[^"]*\)".*/\1/p')
cargo build --locked --package mhnos-testing --bins
docker build -q -t mhnos-runtime-tests -f deploy/docker/tests.Dockerfile deploy/docker >/dev/null
# Kinds of host that have namespaces, or control groups, are not to be had in there.
waived=root,user,relaxed,masked-proc,no-namespaces,no-namespaces-grouped,delegated,none
# Nor those with an older Landlock: who answers in its place reads the memory of who asks.
waived+=,container-linux-6.1,container-linux-5.15
# The test's own bridge meets the kernel's bound on descriptors in flight, from which the capabilities of a host's root exempt.
waived+=,a_hostile_bridge_breaks_nothing
# Controls that show what the kernel says without a filter, or to root with all its powers; a container is never so. `make test` has them.
controls=(--skip the_same_calls_outside_are_answered_by_the_kernel
  --skip the_same_sockets_and_personalities_outside_are_answered_by_the_kernel
  --skip outside_the_same_program_goes_through_each_door_as_root
  --skip outside_programs_of_roots_lend_their_rights
  --skip outside_the_same_attempts_succeed_for_root
  --skip every_process_of_a_service_is_known_for_its_own_in_any_tier)
# Of directories that a container cannot make; in-system.sh has the keeper's tests with such.
groups=(--skip control_groups_go_with_their_service_and_those_of_a_killed_one_at_the_next_start)
inside() { # inside PROGRAM ARGUMENT…
  # /tmp on a disk: in memory the pages of files are no others than those of programs.
  docker run --rm --init -v /tmp -v "$here:$here:ro" -w "$here/crates/mhnos-runtime" -e MHNOS_TEST_WAIVED=$waived \
    mhnos-runtime-tests "$@"
}
for program in $programs; do
  case $program in
    */service-*)
      # By themselves: other tests make sockets with a path, beside which programs have no unix sockets.
      counted compatibility:: -- inside "$program" --nocapture --test-threads 1
      counted tiers:: abuse:: hostile:: neighbour:: ipc:: supervisors:: doctor::spawned egress::shared previews::events:: -- \
        inside "$program" --test-threads 2 "${controls[@]}" "${groups[@]}"
      ;;
    *) counted -- inside "$program" ;;
  esac
done
