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

# shellcheck source=deploy/test/in-containers.sh
. deploy/test/in-containers.sh

printf '\ntest-system: %s checks passed\n' "$passed"
