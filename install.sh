#!/usr/bin/env bash
# Installs MHNOS Runtime on this machine, upgrades it, or removes it. Says what it does; run it again whenever you like.
#
#   ./install.sh               into /usr/local, as a systemd service with its own user; what is there already is upgraded in
#                              place: running programs go on
#   ./install.sh uninstall     removes all of it but the workspace, the settings and the user they belong to, from where the service is
#
#   --dry-run                  says what would be done, and does nothing (root has a program that is there already examine the machine
#                              from where it would be, and removes it again)
#   --prefix DIR               instead of /usr/local
#   --no-service               the program and its tools alone: no user, no systemd; `npm start` or `mhnos-runtime serve` starts it
#
# Works in a checkout (it is built with cargo then) and in an unpacked release. Node.js (22 or newer) and workerd that the machine
# lacks come through npm, pinned by deploy/tools/package-lock.json; python3 and npm through apt-get.
set -euo pipefail
umask 022
caller=${PWD%/}
cd "$(dirname "${BASH_SOURCE[0]}")"

action=install dry=no prefix=/usr/local chosen=no service=yes
while [ $# -gt 0 ]; do
  case $1 in
    install | uninstall) action=$1 ;;
    --dry-run) dry=yes ;;
    --prefix) prefix=${2:?--prefix needs a directory} chosen=yes; shift ;;
    --prefix=*) prefix=${1#*=} chosen=yes ;;
    --no-service) service=no ;;
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) printf 'install.sh: unknown argument %s; --help tells\n' "$1" >&2; exit 2 ;;
  esac
  shift
done
case $prefix in /*) ;; *) prefix=$caller/$prefix ;; esac
prefix=${prefix%/}

readonly user=mhnos state=/var/lib/mhnos settings=/etc/mhnos/runtime.env
readonly unit=/etc/systemd/system/mhnos-runtime.service
program=$prefix/bin/mhnos-runtime tools=$prefix/lib/mhnos-runtime
# What the program says of itself, and where that belongs below the prefix.
readonly generated=(
  man share/man/man1/mhnos-runtime.1
  bash share/bash-completion/completions/mhnos-runtime
  zsh share/zsh/site-functions/_mhnos-runtime
  fish share/fish/vendor_completions.d/mhnos-runtime.fish
)

say() { printf 'install: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
run() { # run COMMAND…, or say it
  if [ $dry = yes ]; then printf 'would run: %s\n' "$*"; else "$@"; fi
}
write() { # write FILE MODE: stdin, by renaming, so that nobody sees half of it
  if [ $dry = yes ]; then printf 'would write: %s\n' "$1"; cat >/dev/null; return; fi
  mkdir -p "$(dirname "$1")"
  cat >"$1.new"
  chmod "$2" "$1.new"
  mv -f "$1.new" "$1"
}
running() { [ $service = yes ] && systemctl is-active --quiet mhnos-runtime.service; }

# A system where systemd runs, and rights to change it.
check_system() {
  [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); MHNOS Runtime needs Linux (or Docker: docker-compose up -d)"
  case $(uname -m) in x86_64 | aarch64) ;; *) fail "no Node.js and workerd are published for $(uname -m)" ;; esac
  if [ $service = yes ]; then
    case $(readlink -m "$prefix")/ in
      /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*)
        fail "the service would not see $prefix (ProtectHome and PrivateTmp of its unit): choose another --prefix, or --no-service" ;;
    esac
    [ -d /run/systemd/system ] || fail "systemd does not run here; --no-service installs the program alone"
    [ "$(id -u)" = 0 ] || [ $dry = yes ] || fail "a system service is installed by root: sudo ./install.sh (or --no-service --prefix ~/.local)"
    check_other
  fi
  if [ $dry = no ]; then
    { mkdir -p "$prefix" && [ -w "$prefix" ]; } || fail "$prefix cannot be written; choose another with --prefix, or use sudo"
  fi
}

# One installation has the service: a keeper that runs opens the program under the name it was started from, and a unit in /etc goes before that of
# a package.
check_other() {
  local place other
  place=$(systemctl show --property FragmentPath --value mhnos-runtime.service)
  other=$(systemctl show --property ExecStart --value mhnos-runtime.service | sed -n 's/^{ path=\([^ ]*\) ;.*/\1/p')
  [ -n "$other" ] || return 0
  if [ "$place" != $unit ] || dpkg-query -S "$other" >/dev/null 2>&1; then
    fail "there is a service already, a package's ($place, $other): remove that first (apt-get remove mhnos-runtime; the workspace and the settings stay)"
  fi
  [ "$other" = "$program" ] ||
    fail "the service runs $other: to upgrade it, --prefix ${other%/bin/mhnos-runtime}; to have it in $prefix, ./install.sh uninstall first (the workspace and the settings stay)"
}

# The program: of the release this script lies in, or built here.
find_program() {
  built=bin/mhnos-runtime
  if [ -x $built ]; then
    local said
    said=$($built --version 2>&1) ||
      fail "the program of this release does not run here ($said); it needs glibc 2.34, as in Debian 12 and Ubuntu 22.04. Build it here, in a checkout, or use Docker"
    return 0
  fi
  built=${CARGO_TARGET_DIR:-target}/release/mhnos-runtime
  # By whom sudo was called, if the checkout is theirs: Rust is in their home, and what is built is theirs, too.
  local home=${HOME:-/root} as=()
  if [ "$(id -u)" = 0 ] && [ "${SUDO_USER:-root}" != root ] && runuser -u "$SUDO_USER" -- test -w .; then
    [ ! -e "${built%/*}" ] || runuser -u "$SUDO_USER" -- test -w "${built%/*}" ||
      fail "${built%/*} is not $SUDO_USER's: sudo chown -R $SUDO_USER ${built%/release/*}"
    as=(runuser -u "$SUDO_USER" --)
    home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
  fi
  if [ -x "$home/.cargo/bin/cargo" ] || have cargo; then
    run "${as[@]}" env HOME="$home" PATH="$home/.cargo/bin:$PATH" cargo build --release --locked --package mhnos-runtime
    return
  fi
  local rust="to build it Rust is needed: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" newer
  [ -x "$built" ] || fail "$rust"
  newer=$(find crates Cargo.toml Cargo.lock \( -name '*.rs' -o -name 'Cargo.*' \) -newer "$built" -print -quit)
  [ -z "$newer" ] || fail "$built is older than $newer; $rust"
  say "takes $built as it was built on $(date -r "$built" '+%F %R'), without building: there is no cargo here"
}

# Whether AppArmor here can keep programs from user namespaces, as on Ubuntu they are unless a profile lets them.
restricted() {
  grep -qs userns_create /sys/kernel/security/apparmor/features/namespaces/mask && [ -e /etc/apparmor.d/abi/4.0 ] && have apparmor_parser
}
profile() { # profile PROGRAM NAME
  sed "s|@PROGRAM@|$1|; s|mhnos-runtime-service|$2|" deploy/systemd/apparmor
}

setting() { # setting VARIABLE: its value in the settings file, as systemd takes it: of several lines the last, without quotes
  sed -n "s/^[[:space:]]*$1=//p" $settings 2>/dev/null | tail -n 1 | sed "s/[[:space:]]*\$//; s/^\([\"']\)\(.*\)\1\$/\2/" || true
}

# What this host gives to sandboxes, before anything is changed. As the user that the service will be, and with its settings.
examine() {
  [ $dry = no ] || [ -x "$built" ] || return 0
  say "what this machine gives (mhnos-runtime doctor):"
  local status=0
  if [ $service = yes ] && [ "$(id -u)" = 0 ]; then
    # On the file system where it will run: a checkout may lie below /root, and /tmp may be one that nothing is executed from.
    local place=$prefix
    until [ -d "$place" ]; do place=$(dirname "$place"); done
    trap forget_examined EXIT
    copy=$(mktemp -d "$place/.mhnos-examined.XXXXXX")
    cp "$built" "$copy/mhnos-runtime"
    chmod 755 "$copy" "$copy/mhnos-runtime"
    # With what the service will be allowed, and only while it is examined.
    if restricted && [ $dry = no ]; then
      profile "$copy/mhnos-runtime" mhnos-runtime-examined >"$copy/apparmor"
      apparmor_parser -r "$copy/apparmor"
    fi
    local name value given=()
    for name in MHNOS_SANDBOX MHNOS_SANDBOX_MIN_TIER; do
      value=$(setting $name)
      [ -z "$value" ] || given+=("$name=$value")
    done
    setpriv --reuid 65534 --regid 65534 --clear-groups env -i PATH="$PATH" HOME=/tmp "${given[@]}" "$copy/mhnos-runtime" doctor >&2 || status=$?
    forget_examined
    trap - EXIT
  else
    "$built" doctor >&2 || status=$?
  fi
  [ $status -ge 2 ] || return 0
  [ $status = 2 ] || fail "that could not be examined: mhnos-runtime doctor ended with status $status"
  if restricted && [ $dry = yes ]; then
    say "that is without the AppArmor profile which the installation brings"
    return
  fi
  [ $service = yes ] || { say "no sandbox can be built here as it is; --sandbox none does without"; return 0; }
  fail "no sandbox can be built here as it is; the lines above say what would give one (MHNOS_SANDBOX=none in $settings does without)"
}
copy=
forget_examined() {
  [ -n "$copy" ] || return 0
  [ ! -e "$copy/apparmor" ] || apparmor_parser -R "$copy/apparmor" || true
  rm -rf "$copy"
  copy=
}

node_is_new() { # node_is_new PROGRAM
  local version
  version=$("$1" --version 2>/dev/null) || return 1
  version=${version#v}
  [ "${version%%.*}" -ge 22 ] 2>/dev/null
}

# Where the service finds programs: the machine's own where they will do, else pinned ones below the prefix.
install_tools() {
  path=$prefix/bin:/usr/local/bin:/usr/bin:/bin
  [ "$prefix" != /usr/local ] || path=/usr/local/bin:/usr/bin:/bin
  local node workerd
  node=$(PATH=$path command -v node || true)
  workerd=$(PATH=$path command -v workerd || true)
  # A service's settings say whether it starts OpenClaw; until there are any, or without a service, who calls this.
  local openclaw=${MHNOS_ALLOW_OPENCLAW:-} said
  said=$(setting MHNOS_ALLOW_OPENCLAW)
  [ $service = no ] || openclaw=${said:-$openclaw}
  local enough=yes
  case $openclaw in true | 1 | yes | on) PATH=$path have openclaw || enough=no ;; esac
  if [ $enough = yes ] && [ -n "$node" ] && node_is_new "$node" && [ -n "$workerd" ] && PATH=$path have python3; then
    say "programs: $node, $workerd and python3 are here"
    return
  fi
  run env MHNOS_TOOLS_DIR="$tools" MHNOS_ALLOW_OPENCLAW="$openclaw" deploy/tools/install service
  path=$tools/node_modules/.bin:/usr/local/bin:/usr/bin:/bin
}

install_account() {
  id $user >/dev/null 2>&1 ||
    run useradd --system --user-group --home-dir $state --no-create-home --shell /usr/sbin/nologin $user
  # $state is made by systemd (StateDirectory) and the workspace in it by the service. Root does nothing there: links are the account's to make.
}

install_service() {
  if [ ! -e $settings ]; then
    write $settings 644 <deploy/systemd/runtime.env # as the package's, which then finds nothing to ask about
  elif [ -e $settings ] && grep -q '^MHNOS_PATH=' $settings && ! grep -qxF "MHNOS_PATH=$path" $settings; then
    say "warning: $settings says $(grep '^MHNOS_PATH=' $settings | tail -1), which need not be where programs are now: without that line it is $path"
  fi
  if restricted; then
    profile "$program" mhnos-runtime-service | write /etc/apparmor.d/mhnos-runtime-service 644
    run apparmor_parser -r /etc/apparmor.d/mhnos-runtime-service
  fi
  local before=
  [ ! -e $unit ] || before=$(cat $unit)
  local text
  text=$(sed "s|/usr/local/bin/mhnos-runtime|$program|; s|^\(Environment=MHNOS_PATH=\).*|\1$path|" deploy/systemd/mhnos-runtime.service)
  if [ "$before" != "$text" ]; then
    write $unit 644 <<<"$text"
    run systemctl daemon-reload
  fi
}

start_service() {
  if running; then
    say "upgrading the running service; programs go on"
    run systemctl reload mhnos-runtime.service
  else
    run systemctl enable --now mhnos-runtime.service
  fi
  say "serving; systemctl status mhnos-runtime, journalctl -u mhnos-runtime"
}

do_install() {
  check_system
  find_program
  examine
  install_tools
  write "$program" 755 <"$([ -e "$built" ] && echo "$built" || echo /dev/null)"
  local i
  for ((i = 0; i < ${#generated[@]}; i += 2)); do
    if [ -e "$built" ]; then "$built" generate "${generated[i]}"; fi | write "$prefix/${generated[i + 1]}" 644
  done
  if [ $service = yes ]; then
    install_account
    install_service
    start_service
  else
    # For `npm start`, where this directory may be written to. In a checkout that serves what is built there.
    local start="npm start, or "
    if [ -e Makefile ]; then
      start=
    elif [ $dry = no ]; then
      printf '%s\n' "$program" "$path" 2>/dev/null >.installed || true
    fi
    say "installed; to start it: $start$program serve --path $path --workspace ./workspace"
  fi
}

do_uninstall() {
  if [ $service = yes ] && [ -e $unit ]; then
    [ "$(id -u)" = 0 ] || [ $dry = yes ] || fail "a system service is removed by root: sudo ./install.sh uninstall"
    local other
    other=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' $unit)
    if [ -n "$other" ] && [ "$other" != "$program" ]; then
      [ $chosen = no ] || fail "the service runs $other: without --prefix it is removed, with --no-service what is below $prefix"
      prefix=${other%/bin/mhnos-runtime} program=$other
      tools=$prefix/lib/mhnos-runtime
    fi
    if dpkg-query -S "$program" >/dev/null 2>&1; then fail "$program is a package's: apt-get remove mhnos-runtime"; fi
    run systemctl disable --now mhnos-runtime.service
    run rm -f $unit
    run systemctl daemon-reload
    if [ -e /etc/apparmor.d/mhnos-runtime-service ]; then
      run apparmor_parser -R /etc/apparmor.d/mhnos-runtime-service || true
      run rm -f /etc/apparmor.d/mhnos-runtime-service
    fi
  fi
  local i
  for ((i = 1; i < ${#generated[@]}; i += 2)); do run rm -f "$prefix/${generated[i]}"; done
  run rm -rf "$program" "$tools"
  [ "$(head -n 1 .installed 2>/dev/null || true)" != "$program" ] || run rm -f .installed
  say "removed. What is left, and is yours to remove: $state (the workspace), $settings, the user $user"
}

"do_$action"
