#!/usr/bin/env bash
# Installs the server on a virtual machine with systemd, as root. Can be run again, and undone.
#
#   deploy/install-vm.sh install [--root DIR] [--venv DIR]
#   deploy/install-vm.sh uninstall [--purge] [--root DIR]
#
# install    the user rag-server, a release in /opt, the units, and the settings /etc/rag-server.env and
#            /etc/rag-index.env where there are none. Run again it renews the units and leaves settings, releases and
#            state alone; a new version is deploy.sh's business. Starts nothing.
# uninstall  stops and removes units and code. Settings, index, conversations and backups stay, unless --purge is given.
# --root     works below DIR and neither makes users nor speaks to systemd
# --venv     uses this virtual environment instead of making one
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# A timer before its service, so that nothing starts what is being removed.
UNITS=(rag-server.service rag-index.timer rag-index.service rag-backup.timer rag-backup.service)
USER_NAME=rag-server

action='' purge='' root='' venv=()
say() { printf '· %s\n' "$*"; }
fail() { printf '✗ %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

while [ $# -gt 0 ]; do
  case $1 in
    install | uninstall) action=$1 ;;
    --purge) purge=yes ;;
    --root) root=${2:?--root needs a folder}; shift ;;
    --venv) venv=(--venv "${2:?--venv needs a folder}"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) printf '✗ unknown: %s\n' "$1" >&2; usage >&2; exit 1 ;;
  esac
  shift
done
[ -n "$action" ] || { usage >&2; exit 1; }
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "this needs root: sudo $0 $action"

units=$root/etc/systemd/system
state=$root/var/lib/rag-server
backups=$root/var/lib/rag-server-backups
own() { [ -n "$root" ] || chown "$@"; }
tell_systemd() { [ -n "$root" ] || systemctl "$@"; }

settings_once() { # settings_once TARGET: what is there already is the operator's
  [ -e "$1" ] && { cat >/dev/null; return; }
  mkdir -p "$(dirname "$1")"
  (umask 077 && cat >"$1")
  chmod 640 "$1"
  own "root:$USER_NAME" "$1"
  say "wrote $1"
}

install_all() {
  if [ ${#venv[@]} -eq 0 ]; then
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
      fail "Python 3.11 or newer with venv is needed; on Debian and Ubuntu: apt-get install python3 python3-venv"
  fi
  if [ -z "$root" ] && ! id "$USER_NAME" >/dev/null 2>&1; then
    useradd --system --home-dir /var/lib/rag-server --shell /usr/sbin/nologin "$USER_NAME"
    say "made the user $USER_NAME"
  fi
  mkdir -p "$state/vector_db"
  chmod 750 "$state"
  own "$USER_NAME:$USER_NAME" "$state" "$state/vector_db"
  settings_once "$root/etc/rag-server.env" <"$HERE/../.env.example"
  settings_once "$root/etc/rag-index.env" <<'ENV'
# What rag-index.service indexes, and how: files and folders, then options of `python -m indexer build`.
SOURCES=/srv/site
OPTIONS=
ENV
  if [ ! -e "$root/opt/rag-server" ]; then
    "$HERE/deploy.sh" place ${root:+--root "$root"} "${venv[@]}" "$HERE/.."
  elif [ ! -L "$root/opt/rag-server" ]; then
    fail "$root/opt/rag-server is a folder; move it aside: it becomes a link to the release that serves"
  fi
  mkdir -p "$units"
  for unit in "${UNITS[@]}"; do
    install -m 644 "$HERE/../systemd/$unit" "$units/$unit"
  done
  tell_systemd daemon-reload
  say "installed; now: edit /etc/rag-server.env and /etc/rag-index.env, then"
  say "systemctl start rag-index && systemctl enable --now rag-server rag-index.timer rag-backup.timer"
}

uninstall_all() {
  for unit in "${UNITS[@]}"; do
    [ ! -e "$units/$unit" ] || tell_systemd disable --now "$unit"
    rm -f "$units/$unit"
  done
  tell_systemd daemon-reload
  if [ -L "$root/opt/rag-server" ]; then rm "$root/opt/rag-server"; fi
  rm -rf "$root/opt/rag-server-releases"
  if [ -n "$purge" ]; then
    rm -rf "$state" "$backups"
    rm -f "$root/etc/rag-server.env" "$root/etc/rag-index.env"
    if [ -z "$root" ] && id "$USER_NAME" >/dev/null 2>&1; then userdel "$USER_NAME"; fi
    say "uninstalled, nothing is left"
  else
    say "uninstalled; settings, index, conversations and backups stay in /etc and /var/lib"
  fi
}

"${action}_all"
