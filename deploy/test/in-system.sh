#!/usr/bin/env bash
# Inside a machine booted by systemd with cgroup v2, as root: the unit with limits that the kernel holds, AppArmor, and, where there is
# Docker and an image, the container on this kernel.
set -euo pipefail
# shellcheck source=deploy/test/in-common.sh
. "$(dirname "$0")/in-common.sh"
# shellcheck source=deploy/test/in-counted.sh
. "$(dirname "$0")/in-counted.sh"
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

say "control groups of version 2: the keeper's own tests"
systemctl stop mhnos-runtime
suite=/var/tmp/mhnos-suite # where everybody can reach it
install -d -m 755 $suite
install -m 755 deploy/test/keeper deploy/test/mhnos_sandbox $suite
useradd --system mhnos-tests
in_group() { # in_group OPTION… COMMAND…: in a group of its own, as systemd gives it to a unit; what others are for is not told
  systemd-run --wait --pipe --quiet --property Delegate=yes --property WorkingDirectory=$suite "$@" | grep -v "ignored, waived"
}
holds "they are found" counted cgroup:: -- in_group $suite/mhnos_sandbox
holds "as root, T1: limits, kills, faults" counted root:: -- in_group $suite/keeper
holds "as root, T3+" counted no-namespaces-grouped:: -- in_group $suite/keeper
holds "as root, for an ordinary user" counted delegated::limits -- in_group $suite/keeper
holds "as an ordinary user" counted delegated:: -- in_group --property User=mhnos-tests $suite/keeper
holds "no group is left" test -z "$(find /sys/fs/cgroup -name 'mhnos-*' -not -name '*.service' -not -name '*.mount')"

say "AppArmor"
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then
  holds "the container's profile loads" apparmor_parser -r deploy/docker/apparmor
else
  fail "this machine has no AppArmor"
fi

# shellcheck source=deploy/test/in-containers.sh
. deploy/test/in-containers.sh

printf '\ntest-system: %s checks passed\n' "$passed"
