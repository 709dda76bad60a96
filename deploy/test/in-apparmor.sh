#!/usr/bin/env bash
# Inside a machine booted by systemd, as root, with AppArmor 4 and a kernel that asks it about user namespaces: what the service does where
# programs may not have them without a profile, as on Ubuntu 23.10 and newer. On Ubuntu its own switch is turned on; elsewhere profiles on
# the directories of programs stand in for it, and Ubuntu's profile for those that made such a namespace is what Debian brings.
set -euo pipefail
# shellcheck source=deploy/test/in-common.sh
. "$(dirname "$0")/in-common.sh"
uname -r
switch=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
elsewhere=/usr/local/libexec/mhnos-runtime-elsewhere # the program where no profile is for it

say "the machine"
apparmor_parser --version | head -1
holds "AppArmor is asked about user namespaces" grep -q userns_create /sys/kernel/security/apparmor/features/namespaces/mask
id ordinary >/dev/null 2>&1 || useradd --create-home ordinary
as() { runuser -u ordinary -- env -C / HOME=/home/ordinary "$@"; }
refused() { ! "$@" 2>/dev/null; }
bare() { as unshare --user --map-root-user --mount mount -t tmpfs none /mnt; } # what every sandbox begins with
restrict() {
  if [ -e $switch ]; then
    echo 1 >$switch
    return
  fi
  cat >/tmp/restricted <<'P'
abi <abi/4.0>,
include <tunables/global>
profile restricted /{usr/local,usr/bin,tmp,home}/** flags=(attach_disconnected) {
  allow capability, allow network, allow signal, allow dbus, allow unix, allow mqueue, allow ptrace,
  allow mount, allow umount, allow pivot_root, allow change_profile, allow io_uring,
  allow file rwlkm /**,
  allow pix /**,
  deny userns,
}
P
  apparmor_parser -r /tmp/restricted
}

[ ! -e $switch ] || echo 0 >$switch
holds "the control: an ordinary user makes a user namespace and mounts in it" bare
restrict
holds "and no longer does, once AppArmor keeps programs from it" refused bare

say "a program without a profile"
install -D -m 755 bin/mhnos-runtime $elsewhere
as $elsewhere doctor >/tmp/doctor || true
cat /tmp/doctor
holds "has no T1" grep -q '^tier  T1  *NO' /tmp/doctor
holds "and doctor says that it takes a profile" grep -q 'to get it: AppArmor keeps this program.*userns,.*operations.md' /tmp/doctor
as env MHNOS_SANDBOX_MIN_TIER=T1 MHNOS_RUNTIME_PORT=18799 timeout 120 $elsewhere serve --workspace /home/ordinary/work >/tmp/serve 2>&1 && status=0 || status=$?
cat /tmp/serve
holds "serve with a floor of T1 does not start" test "$status" = 1
holds "and says so, too" grep -q 'AppArmor keeps this program' /tmp/serve
unprivileged=/etc/apparmor.d/unprivileged_userns
if [ ! -e $switch ] && [ -e $unprivileged ]; then
  sed 's/flags=(complain)//' $unprivileged | apparmor_parser -r
  as aa-exec -p unprivileged_userns -- $elsewhere doctor >/tmp/doctor || true
  cat /tmp/doctor
  holds "under Ubuntu's profile unprivileged_userns neither" grep -q '^tier  T1  *NO' /tmp/doctor
  holds "and doctor says why" grep -q 'to get it: .*userns,.*operations.md' /tmp/doctor
fi

say "the installation"
send_tools $tools
./install.sh 2>&1 | tee /tmp/install
holds "examines what the service will be allowed" grep -q '^tier  T1  *yes' /tmp/install
holds "and leaves nothing of that" refused grep mhnos-runtime-examined /sys/kernel/security/apparmor/profiles
holds "the service is up" healthy 180
check tier T1
check tools
holds "the profile of the container does not replace the service's" apparmor_parser -r deploy/docker/apparmor
systemctl restart mhnos-runtime
holds "the service is up again" healthy 180
check tier T1
holds "under its own profile" grep -q '^mhnos-runtime-service (unconfined)' "/proc/$(main_pid)/attr/current"
./install.sh
check tier T1
holds "every other program is kept from them as before" refused bare
./install.sh uninstall
holds "nothing is left of its profile" refused grep mhnos-runtime-service /sys/kernel/security/apparmor/profiles

say "the Debian package"
echo "MHNOS_PATH=$tools/node_modules/.bin:/usr/bin:/bin" >>/etc/mhnos/runtime.env
send_tools $tools
dpkg -i --force-confold ./*.deb
holds "the service is up" healthy 180
check tier T1
systemctl stop mhnos-runtime

# shellcheck source=deploy/test/in-containers.sh
. deploy/test/in-containers.sh

printf '\ntest-apparmor: %s checks passed\n' "$passed"
