#!/usr/bin/env bash
# Inside a machine booted by systemd, as root: installs, upgrades and removes the service in every way docs/operations.md names.
set -euo pipefail
# shellcheck source=deploy/test/in-common.sh
. "$(dirname "$0")/in-common.sh"

nothing_given_away() { # nothing_given_away COMMAND…: run while the account has a link to a directory of root's where the workspace was
  local state=/var/lib/mhnos
  systemctl stop mhnos-runtime
  install -d -m 700 /var/lib/roots
  setpriv --reuid mhnos --regid mhnos --clear-groups sh -c "mv $state/workspace $state/aside && ln -s /var/lib/roots $state/workspace"
  "$@" || printf 'the service does not start so\n'
  rm $state/workspace
  mv $state/aside $state/workspace
  systemctl reset-failed mhnos-runtime
  systemctl restart mhnos-runtime
  holds "a link of the account's leads root nowhere" test "$(stat -c %U:%a /var/lib/roots)" = root:700
  holds "the service is up again" healthy
}

say "a dry run changes nothing"
./install.sh --dry-run
holds "no user" bash -c '! id mhnos 2>/dev/null'
for file in /usr/local/bin/mhnos-runtime /usr/local/lib/mhnos-runtime /etc/systemd/system/mhnos-runtime.service /etc/mhnos /var/lib/mhnos; do
  holds "no $file" absent $file
done

say "a prefix that the service could not see is refused"
for prefix in /root/x /home/x /tmp/x; do
  said=$(./install.sh --prefix $prefix 2>&1) && fail "installed in $prefix"
  holds "$prefix: the reason is told" grep -q "would not see $prefix.*--no-service" <<<"$said"
  holds "nothing is there" absent $prefix
done

say "a program that does not run here is not installed"
mv bin/mhnos-runtime bin/kept
printf '#!/bin/sh\necho "libc.so.6: version GLIBC_2.99 not found" >&2\nexit 1\n' >bin/mhnos-runtime
chmod 755 bin/mhnos-runtime
said=$(./install.sh 2>&1) && fail "installed all the same"
mv -f bin/kept bin/mhnos-runtime
holds "the reason is told" grep -q 'does not run here.*GLIBC_2.99' <<<"$said"
holds "nothing was installed" absent /usr/local/bin/mhnos-runtime

say "installation"
send_tools $tools
./install.sh
holds "the service is up" healthy
holds "it runs as its own user" test "$(ps -o user= -p "$(main_pid)" | tr -d ' ')" = mhnos
holds "systemd knows that it is ready" test "$(systemctl show -P StatusText mhnos-runtime)" = serving
holds "the manual is there" test -s /usr/local/share/man/man1/mhnos-runtime.1
holds "what shells complete by" test -s /usr/local/share/bash-completion/completions/mhnos-runtime \
  -a -s /usr/local/share/zsh/site-functions/_mhnos-runtime -a -s /usr/local/share/fish/vendor_completions.d/mhnos-runtime.fish
check tools
check tier T1
"$tools/node_modules/.bin/node" examples/demo/demo.mjs $address || fail "the demonstration"
passed=$((passed + 1))
check write kept yes

say "again, with a program running: an upgrade in place"
check slow drained
keeper=$(main_pid)
echo MHNOS_MAX_PROCESSES=7 >>/etc/mhnos/runtime.env
chmod 750 /var/lib/mhnos/workspace
./install.sh
holds "the same keeper" test "$(main_pid)" = "$keeper"
holds "another bridge, of the new program" bash -c "ps -o args= --ppid $keeper | grep -q -- --program=1"
check running 1
holds "the settings are as they were edited" grep -q MHNOS_MAX_PROCESSES=7 /etc/mhnos/runtime.env
holds "and what may be done with the workspace" test "$(stat -c %a /var/lib/mhnos/workspace)" = 750

say "the service of one place is not upgraded from another"
said=$(./install.sh --prefix /opt/other 2>&1) && fail "installed there"
holds "that and what to do is said" grep -q 'the service runs /usr/local/bin/mhnos-runtime: to upgrade it, --prefix /usr/local;' <<<"$said"
holds "nothing is there" absent /opt/other
said=$(./install.sh uninstall --prefix /opt/other 2>&1) && fail "removed"
holds "nor removed" grep -q 'the service runs /usr/local/bin/mhnos-runtime: without --prefix' <<<"$said"
cp -a /etc/mhnos/runtime.env /root/edited
cp deploy/systemd/runtime.env /etc/mhnos/runtime.env # as it was installed
dpkg -i mhnos-runtime_*.deb >/root/said 2>&1 </dev/null
holds "a package: the settings are no conflict, and it says whose the service is" grep -q 'stays that of /etc/systemd/system/mhnos-runtime.service' /root/said
holds "and it is" test "$(systemctl show -P FragmentPath mhnos-runtime):$(main_pid)" = "/etc/systemd/system/mhnos-runtime.service:$keeper"
dpkg -P mhnos-runtime
mkdir -p /etc/mhnos
cp -a /root/edited /etc/mhnos/runtime.env
holds "nor does its removal end the service, or keep it from the next boot" test "$(systemctl is-enabled mhnos-runtime):$(main_pid)" = "enabled:$keeper"
check running 1

say "an upgrade with other tools, and no network to get them by"
cp deploy/tools/package-lock.json /tmp/lock
echo >>deploy/tools/package-lock.json
said=$(PATH=$tools/node_modules/.bin:$PATH npm_config_registry=http://127.0.0.1:9 npm_config_fetch_retries=0 ./install.sh 2>&1) && fail "installed all the same"
cp /tmp/lock deploy/tools/package-lock.json
holds "it says so" grep -q 'npm could not install them.*what was there before stays' <<<"$said"
check machine "$("$tools/node_modules/.bin/node" -p process.arch)" "$(uname -m)"
holds "what was installed works" "$tools/node_modules/.bin/workerd" --version
check running 1

say "what the machine gives is examined with the service's settings, and where the program will run"
examined() { # examined LINE COMMAND…: by a dry run, with the line in the settings and the command's environment
  cp /etc/mhnos/runtime.env /root/settings
  printf '%s\n' "$1" >>/etc/mhnos/runtime.env
  "${@:2}" ./install.sh --dry-run >/root/said 2>&1 && status=0 || status=$?
  cp /root/settings /etc/mhnos/runtime.env
}
examined 'MHNOS_SANDBOX="none"' env
holds "none, of the settings: the service would start, so it is upgraded" test "$status" = 0
holds "and that is said" grep -q '^mode none: a service would start' /root/said
examined MHNOS_SANDBOX_MIN_TIER=bogus env
holds "what the service would not start with is refused" test "$status" = 1
holds "with the reason" grep -q 'MHNOS_SANDBOX_MIN_TIER="bogus"' /root/said
examined '' env MHNOS_SANDBOX=bogus MHNOS_WORKSPACE=/nowhere
holds "the caller's variables are not the service's" test "$status" = 0
mkdir -m 700 /root/own
mount -t tmpfs -o noexec tmpfs /tmp
examined '' env TMPDIR=/root/own
umount /tmp
holds "nothing is executed from /tmp, TMPDIR is root's alone: examined all the same" test "$status" = 0
holds "in the tier that it has" grep -q 'a service would start in tier T1' /root/said
mount --bind /usr/local /usr/local
mount -o remount,bind,noexec /usr/local
examined '' env
umount /usr/local
holds "where the program could not run it is refused" test "$status" = 1
holds "with that reason" grep -q 'could not be examined' /root/said
holds "and nothing is left of it" test -z "$(find /usr/local -name '.mhnos-examined*')"

say "a service that may start OpenClaw gets it, whatever else the machine has"
printf '#!/bin/sh\necho v24.99.0\n' >/usr/local/bin/node
cp /usr/local/bin/node /usr/local/bin/workerd
chmod 755 /usr/local/bin/node /usr/local/bin/workerd
examined '' env
holds "the control: nothing is fetched where Node.js, workerd and python3 are there" grep -q 'programs: /usr/local/bin/node' /root/said
examined MHNOS_ALLOW_OPENCLAW=true env
holds "with OpenClaw it is" grep -q 'would run: .* MHNOS_ALLOW_OPENCLAW=true deploy/tools/install service' /root/said
rm /usr/local/bin/node /usr/local/bin/workerd

say "an upgrade where the account lays a trap"
nothing_given_away ./install.sh
check slow drained

say "a stop drains"
systemctl restart mhnos-runtime
holds "the service is up again" healthy
check read drained $'orderly\n'

say "systemd waits for a drain, however short its own patience"
mkdir -p /run/systemd/system/mhnos-runtime.service.d
printf '[Service]\nTimeoutStopSec=1s\n' >/run/systemd/system/mhnos-runtime.service.d/patience.conf
systemctl daemon-reload
check slow waited-for
systemctl restart mhnos-runtime
holds "up" healthy
check read waited-for $'orderly\n'
rm -r /run/systemd/system/mhnos-runtime.service.d
systemctl daemon-reload

say "the service manager restarts what fails"
check slow never
keeper=$(main_pid)
kill -KILL "$keeper"
holds "killed: another keeper" within 30 bash -c "p=\$(systemctl show -P MainPID mhnos-runtime); [ \$p != 0 ] && [ \$p != $keeper ]"
holds "up" healthy
check running 0
mkdir -p /run/systemd/system/mhnos-runtime.service.d
printf '[Service]\nWatchdogSec=2s\n' >/run/systemd/system/mhnos-runtime.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart mhnos-runtime
holds "up, with a watchdog of two seconds" healthy
keeper=$(main_pid)
holds "it outlives several watchdog periods" bash -c "sleep 7; [ \$(systemctl show -P MainPID mhnos-runtime) = $keeper ]"
kill -STOP "$keeper"
holds "hung: another keeper" within 60 bash -c "p=\$(systemctl show -P MainPID mhnos-runtime); [ \$p != 0 ] && [ \$p != $keeper ]"
holds "up" healthy
rm -r /run/systemd/system/mhnos-runtime.service.d

say "a backup and its restoration, as docs/operations.md has them"
typed() { # typed OPTION: the document's lines for a service of systemd with it, one after the other
  local lines
  lines=$(sed -n "s/ *# systemd.*//; /^tar .* $1 /p" docs/operations.md)
  [ -n "$lines" ] || fail "no tar $1 in docs/operations.md"
  (cd /root && bash -exc "$lines")
}
content() { (cd / && find var/lib/mhnos/workspace etc/mhnos -printf '%p %M %u %g\n' | sort && find var/lib/mhnos/workspace etc/mhnos -type f -exec sha256sum {} + | sort); }
systemctl stop mhnos-runtime
install -m 640 -g mhnos /dev/null /etc/mhnos/tokens
content >/root/before
typed -czf
rm -rf /var/lib/mhnos/workspace /etc/mhnos
typed -xpzf
content >/root/after
holds "all is as it was" cmp /root/before /root/after
rm /etc/mhnos/tokens
systemctl start mhnos-runtime
check read kept yes

say "removal leaves the workspace"
./install.sh uninstall
holds "no service" bash -c '! systemctl cat mhnos-runtime 2>/dev/null'
holds "no program" absent /usr/local/bin/mhnos-runtime
holds "no file of ours in what is shared" test -z "$(find /usr/local/share -name '*mhnos-runtime*')"
holds "no process" bash -c '! pgrep -u mhnos'
holds "the workspace is as it was" test "$(cat /var/lib/mhnos/workspace/kept)" = yes
holds "the settings too" test -e /etc/mhnos/runtime.env
if [ ! -d tools ]; then holds "no tools" absent $tools/node_modules; fi

say "another prefix: the settings that stayed do not keep the service from what is there"
tools=/opt/other/lib/mhnos-runtime
send_tools $tools
./install.sh --prefix /opt/other
PATH=$PATH:/opt/other/bin
holds "the service is up" healthy
check tools
check read kept yes
./install.sh uninstall
holds "removal finds the program by the unit" absent /opt/other/bin/mhnos-runtime
echo MHNOS_PATH=/opt/gone/bin:/usr/bin:/bin >>/etc/mhnos/runtime.env
said=$(./install.sh --dry-run --prefix /opt/other 2>&1)
holds "a line of the settings that leads elsewhere is told" grep -q 'warning: .*MHNOS_PATH=/opt/gone' <<<"$said"
sed -i '/^MHNOS_PATH=/d' /etc/mhnos/runtime.env
tools=/usr/local/lib/mhnos-runtime

say "another prefix, without a service"
send_tools /opt/mhnos/lib/mhnos-runtime
./install.sh --no-service --prefix /opt/mhnos
holds "the program runs" /opt/mhnos/bin/mhnos-runtime --version
said=$(/opt/mhnos/bin/mhnos-runtime doctor) || true
printf '%s\n' "$said"
holds "as root, too, doctor finds the tier that the service had" grep -q "would start in tier T1" <<<"$said"
holds "no unit" absent /etc/systemd/system/mhnos-runtime.service
./install.sh uninstall --no-service --prefix /opt/mhnos
holds "and is gone" absent /opt/mhnos/bin/mhnos-runtime
said=$(cd / && "$OLDPWD/install.sh" --dry-run --no-service --prefix opt/mhnos 2>&1)
holds "a relative prefix is the caller's" grep -q 'would write: /opt/mhnos/bin/mhnos-runtime' <<<"$said"

say "in a checkout, by sudo: built by whoever has it, or said not to be"
useradd --create-home builder
checkout=/home/builder/checkout
mkdir -p $checkout/target/release $checkout/crates /home/builder/.cargo/bin
cp -r install.sh deploy $checkout/
touch $checkout/Cargo.toml $checkout/Cargo.lock $checkout/crates/main.rs
cat >/home/builder/.cargo/bin/cargo <<END
#!/bin/sh
printf '%s %s %s\n' "\$(id -un)" "\$HOME" "\$*" >$checkout/built
cp $PWD/bin/mhnos-runtime target/release/
END
chmod 755 /home/builder/.cargo/bin/cargo . bin
chown -R builder: /home/builder
install -D /dev/null /opt/built/lib/mhnos-runtime/.stamp # the tools are not what this is about
printf '%s base\n' "$(sha256sum deploy/tools/package-lock.json | cut -d' ' -f1)" >/opt/built/lib/mhnos-runtime/.stamp
from_checkout() { env SUDO_USER="$1" $checkout/install.sh --no-service --prefix /opt/built 2>&1; }
said=$(from_checkout root) && fail "installed without Rust and without a program"
holds "by root, who has no Rust: refused" grep -q 'Rust is needed' <<<"$said"
from_checkout builder
holds "by sudo: built as its caller" grep -q '^builder /home/builder build --release' $checkout/built
holds "and installed" /opt/built/bin/mhnos-runtime --version
said=$(from_checkout root)
holds "no Rust, but a program as new as its sources: that is said" grep -q 'without building' <<<"$said"
touch -d '+1 minute' $checkout/crates/main.rs
said=$(from_checkout root) && fail "installed a program that is older than its sources"
holds "older than its sources: refused" grep -q 'is older than crates/main.rs' <<<"$said"
$checkout/install.sh uninstall --no-service --prefix /opt/built

say "the Debian package"
rm -rf /etc/mhnos
send_tools /usr/lib/mhnos-runtime
dpkg -i mhnos-runtime_*.deb
tools=/usr/lib/mhnos-runtime
[ -d $tools ] || MHNOS_TOOLS_DIR=$tools /usr/share/mhnos-runtime/tools/install service
systemctl restart mhnos-runtime
holds "the service is up" healthy
check tools
check read kept yes
check slow again
keeper=$(main_pid)
dpkg -i mhnos-runtime_*.deb
holds "an upgrade keeps the keeper" test "$(main_pid)" = "$keeper"
check running 1
nothing_given_away dpkg -i mhnos-runtime_*.deb

say "the package leaves the service as the administrator has it"
state() { # state ENABLED ACTIVE, and the package is whole
  [ "$(systemctl is-enabled mhnos-runtime):$(systemctl is-active mhnos-runtime)" = "$1:$2" ] &&
    dpkg-query -W -f '${Status}' mhnos-runtime | grep -q ' ok installed$'
}
holds "at first it is enabled" state enabled active
systemctl disable --now mhnos-runtime
dpkg -i mhnos-runtime_*.deb
holds "disabled: an upgrade neither enables nor starts it" state disabled inactive
systemctl mask mhnos-runtime
dpkg -i mhnos-runtime_*.deb
holds "masked: it stays so" state masked inactive
systemctl unmask mhnos-runtime
systemctl enable --now mhnos-runtime
mkdir -p /run/systemd/system/mhnos-runtime.service.d
printf '[Service]\nExecReload=\nExecReload=/bin/false\n' >/run/systemd/system/mhnos-runtime.service.d/reload.conf
dpkg -i mhnos-runtime_*.deb
holds "an upgrade that is taken back" state enabled active
rm -r /run/systemd/system/mhnos-runtime.service.d
dpkg -r mhnos-runtime
holds "removed: no service" bash -c '! systemctl is-active --quiet mhnos-runtime && ! systemctl cat mhnos-runtime 2>/dev/null'
dpkg -i mhnos-runtime_*.deb
holds "installed again, enabled as it was" state enabled active
holds "the service is up" healthy
check read kept yes
said=$(./install.sh 2>&1) && fail "installed beside the package"
holds "install.sh leaves the package its service" grep -q "a package's (.*, /usr/bin/mhnos-runtime): remove that first" <<<"$said"
dpkg -P mhnos-runtime
holds "purged: no service" bash -c '! systemctl is-active --quiet mhnos-runtime'
holds "nothing that would start it" test -z "$(find /etc/systemd/system -name '*mhnos*')"
holds "the workspace is as it was" test "$(cat /var/lib/mhnos/workspace/kept)" = yes

printf '\ntest-install: %s checks passed\n' "$passed"
