#!/usr/bin/env bash
# Builds the image without a container engine and runs the server in it: `make image-test`, as root on Debian.
#
# The base is not fetched: a minimal Debian with its own Python stands in under the base image's name. Everything else
# is the real Dockerfile, built by buildah. The server then answers /ready twice: as buildah runs it, and as Compose and
# Kubernetes do, on a read-only root without capabilities. Takes a few minutes; the base is kept for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

KEPT=${1:-/var/tmp/rag-server-image-test}
READY_WITHIN_S=60
NAME=localhost/rag-server:test
PLAYED=$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)
SETTINGS=(HOST=127.0.0.1 WORKERS=1)

say() { printf '· %s\n' "$*"; }
fail() { printf '✗ %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "building without an engine needs root: sudo make image-test"
for program in buildah debootstrap setpriv unshare; do
  command -v "$program" >/dev/null || fail "$program is missing; on Debian: sudo apt-get install buildah debootstrap"
done

mkdir -p "$KEPT"
work=$(mktemp -d "$KEPT/run.XXXXXX")
buildah() { command buildah --storage-driver vfs --root "$KEPT/storage" --runroot "$KEPT/runroot" "$@"; }

server=
stop_server() {
  [ -n "$server" ] || return 0
  # The whole session that was started for it, and nothing else.
  kill -TERM -- "-$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}
clean_up() {
  stop_server
  buildah umount --all >/dev/null 2>&1 || true
  buildah rm --all >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

if ! buildah inspect --type image "docker.io/library/$PLAYED" >/dev/null 2>&1; then
  say "a minimal Debian, once, in the place of $PLAYED"
  # shellcheck source=/dev/null
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$work/root" >"$work/log" ||
    { tail -20 "$work/log" >&2; fail "debootstrap"; }
  ln -s python3 "$work/root/usr/bin/python"
  rm -rf "$work/root/var/cache/apt" "$work/root/var/lib/apt/lists"
  base=$(buildah from scratch)
  buildah add --quiet "$base" "$work/root" / >/dev/null
  buildah commit --quiet "$base" "docker.io/library/$PLAYED" >/dev/null
  buildah rm "$base" >/dev/null
  rm -rf "$work/root"
fi

# What this machine's own pip needs to reach its packages (a company's certificates, an index), pip in the build needs.
mounts=()
for path in /etc/ssl/certs /usr/local/share/ca-certificates /etc/pip.conf; do
  [ ! -e "$path" ] || mounts+=(--volume "$path:$path:ro")
done
say "building the Dockerfile"
buildah bud --quiet --format docker --isolation chroot --pull-never "${mounts[@]}" --env PIP_CERT \
  --build-arg VERSION=test --tag "$NAME" . >"$work/log" 2>&1 || { tail -40 "$work/log" >&2; fail "the build"; }

container=$(buildah from --pull-never "$NAME")
inside() { buildah run --isolation chroot --user 1001:1001 "$container" -- "$@"; }
said() { buildah inspect --type image --format "$1" "$NAME"; }
[ "$(said '{{.OCIv1.Config.User}}')" = 1001:1001 ] || fail "the image does not run as 1001:1001"
[ "$(said '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}}')" = test ] || fail "no version label"
said '{{.Docker.Config.Healthcheck}}' | grep -q /health || fail "the image has no health check"
# shellcheck disable=SC2016 # the container's shell reads $1
has() { inside sh -c 'command -v "$1"' sh "$1" >/dev/null 2>&1; }
has python || fail "nothing can be run in the image"
for program in curl wget gcc cc make pip git; do
  if has "$program"; then fail "$program is in the image"; fi
done
inside touch /data/state/written || fail "the server's user may not write its state"
if inside touch /app/written 2>/dev/null; then fail "the server's user may change its code"; fi
say "user, labels, health check and programs are as they should be"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_ready() { # wait_ready PORT WHAT
  python3 - "$1" "$READY_WITHIN_S" <<'PYTHON' || { tail -40 "$work/log" >&2; fail "$2: /ready did not come"; }
import sys, time, urllib.error, urllib.request
address, ends_at = f"http://127.0.0.1:{sys.argv[1]}/ready", time.monotonic() + float(sys.argv[2])
while time.monotonic() < ends_at:
    try:
        if urllib.request.urlopen(address, timeout=2).status == 200:
            raise SystemExit(0)
    except (urllib.error.URLError, OSError):
        time.sleep(0.2)
raise SystemExit(1)
PYTHON
}

port=$(free_port)
settings=("${SETTINGS[@]}" "PORT=$port")
setsid "$(type -P buildah)" --storage-driver vfs --root "$KEPT/storage" --runroot "$KEPT/runroot" \
  run --isolation chroot --user 1001:1001 "${settings[@]/#/--env=}" "$container" -- \
  python run_production.py --demo >"$work/log" 2>&1 &
server=$!
wait_ready "$port" "as buildah runs it"
buildah run --isolation chroot --user 1001:1001 --env "PORT=$port" "$container" -- \
  python -c "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=4)" ||
  fail "the health check"
stop_server
say "/ready is 200 as UID 1001, and the health check passes"

root=$(buildah mount "$container")
mapfile -t environment < <(said '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' | sed '/^$/d')
port=$(free_port)
# shellcheck disable=SC2016 # the inner shell reads its own arguments
setsid unshare --mount --propagation private bash -c '
  set -e
  root=$1; shift
  mount --bind "$root" "$root"
  mount --bind /dev "$root/dev"
  mount -t proc proc "$root/proc"
  mount -t tmpfs tmpfs "$root/tmp"
  mount -t tmpfs -o uid=1001,gid=1001 tmpfs "$root/data"
  mount -o remount,bind,ro "$root"
  exec chroot "$root" setpriv --reuid 1001 --regid 1001 --clear-groups --no-new-privs --bounding-set=-all \
    env --chdir=/app -i "$@" sh -c "! touch /written && ! touch /app/written && exec python run_production.py --demo"
' bash "$root" "${environment[@]}" "${SETTINGS[@]}" "PORT=$port" >"$work/log" 2>&1 &
server=$!
wait_ready "$port" "on a read-only root"
stop_server
say "/ready is 200 as UID 1001 on a read-only root, without capabilities"
