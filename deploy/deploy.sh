#!/usr/bin/env bash
# Puts a new version into service, and the old one back if the new one does not get ready.
#
#   deploy/deploy.sh systemd [options] [SOURCE]   a release beside the others, then one link and a restart
#   deploy/deploy.sh compose [options] [SOURCE]   an image, then docker compose up; run it where .env is
#   deploy/deploy.sh rollback systemd|compose     the version before this one
#   deploy/deploy.sh place [options] [SOURCE]     the release and the link alone: what install-vm.sh calls
#
#   SOURCE         the code; default: the folder above this script
#   --wait N       seconds that the new version has to answer /ready; default 60
#   --url URL      where it answers; default: http://127.0.0.1 and PORT of the settings
#   --keep N       releases kept, the live one and the one before it always; default 3
#   --venv DIR     link this virtual environment instead of making one
#   --root DIR     look for /opt and /etc below DIR
#
# Exit code: 0 the new version serves; 1 it does not, and what served before still does, or does again; 2 nothing serves.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PARTS=(rag indexer docs rag_server.py run_production.py gunicorn.conf.py requirements-{prod,otel,postgres,entra,local}.lock)
COMPOSE=(docker compose -f docker-compose.prod.yml)
IMAGE=rag-server

mode='' action=deploy wait_s=60 url='' keep=3 venv='' root='' source=''

say() { printf '· %s\n' "$*"; }
warn() { printf '✗ %s\n' "$*" >&2; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

while [ $# -gt 0 ]; do
  case $1 in
    systemd | compose | place) mode=$1 ;;
    rollback) action=rollback ;;
    --wait | --url | --keep | --venv | --root)
      [ $# -ge 2 ] || { warn "$1 needs a value"; exit 1; }
      case $1 in
        --wait) wait_s=$2 ;; --url) url=$2 ;; --keep) keep=$2 ;; --venv) venv=$(realpath "$2") ;; --root) root=$2 ;;
      esac
      shift ;;
    -h | --help) usage; exit 0 ;;
    -*) warn "unknown option $1"; usage >&2; exit 1 ;;
    *) source=$1 ;;
  esac
  shift
done
[ -n "$mode" ] || { usage >&2; exit 1; }
[[ $wait_s =~ ^[0-9]+$ && $keep =~ ^[1-9][0-9]*$ ]] || { warn "--wait and --keep take whole numbers"; exit 1; }
source=$(cd "${source:-$HERE/..}" && pwd)
releases=$root/opt/rag-server-releases
live=$root/opt/rag-server
settings=$root/etc/rag-server.env
[ "$mode" != compose ] || settings=.env

address() {
  local port
  port=$(sed -n 's/^[[:space:]]*PORT=[^0-9]*\([0-9]*\).*/\1/p' "$settings" 2>/dev/null | tail -1)
  printf '%s' "${url:-http://127.0.0.1:${port:-8000}}"
}

# No curl, which a server need not have: the Python that serves asks.
wait_ready() { # wait_ready PYTHON
  "$1" - "$(address)/ready" "$wait_s" <<'PYTHON'
import sys, time, urllib.request
address, ends_at = sys.argv[1], time.monotonic() + float(sys.argv[2])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while time.monotonic() < ends_at:
    try:
        if opener.open(address, timeout=3).status == 200:
            raise SystemExit(0)
    except OSError:
        pass
    time.sleep(0.25)
raise SystemExit(1)
PYTHON
}

# The release before works on the new schema too: it serves meanwhile, and again where the new one fails.
migrates() { # migrates SETTINGS
  [ "$action" != rollback ] && grep -q '^DATABASE_URL=.' "$1" 2>/dev/null
}

# --- systemd: releases in folders, /opt/rag-server is a link to one of them ----------------------------------------

place_release() { # sets $release
  local name packages=()
  name=$(date -u +%Y%m%dT%H%M%S.%NZ)
  release=$releases/$name
  for part in "${PARTS[@]}"; do
    [ -e "$source/$part" ] || { warn "$source holds no $part"; exit 1; }
  done
  mkdir -p "$release"
  # Half a release must neither stay nor be taken for one.
  trap 'rm -rf "$release"; warn "no release was made"; exit 1' EXIT
  # Readable for the service whatever the umask, and never writable.
  (umask 022 && cd "$source" && tar -cf - --exclude=__pycache__ "${PARTS[@]}") | tar -xf - --no-same-owner -C "$release"
  chmod -R u+rwX,go+rX,go-w "$release"
  if [ -n "$venv" ]; then
    ln -s "$venv" "$release/.venv"
  else
    say "installing packages into $release"
    python3 -m venv "$release/.venv"
    # Traces, PostgreSQL, Entra ID and the local model need packages of their own.
    ! grep -q '^OTEL_EXPORTER_OTLP_ENDPOINT=.' "$settings" 2>/dev/null || packages+=(-r "$release/requirements-otel.lock")
    ! grep -qE '^(DATABASE|VECTOR_DB)_URL=.' "$settings" 2>/dev/null || packages+=(-r "$release/requirements-postgres.lock")
    ! grep -q '^AZURE_OPENAI_AUTH=.*entra' "$settings" 2>/dev/null || packages+=(-r "$release/requirements-entra.lock")
    ! grep -q '^EMBEDDINGS=local' "$settings" 2>/dev/null || packages+=(-r "$release/requirements-local.lock")
    "$release/.venv/bin/pip" --disable-pip-version-check --quiet install --require-hashes --only-binary :all: \
      -r "$release/requirements-prod.lock" "${packages[@]}"
  fi
  # The service may not write here, so what can be compiled is compiled now.
  "$release/.venv/bin/python" -m compileall -q "$release/rag" "$release/indexer" || true
  trap - EXIT
}

point_to() { # one rename: whoever looks finds the old release or the new one
  ln -sfn "$1" "$live.new"
  mv -Tf "$live.new" "$live"
}

# As the service sees it: its settings, its folders, its user. Neither the port nor the network is asked.
check_release() {
  local folder as=() folders=()
  folder=$(mktemp -d)
  chmod 755 "$folder"
  ln -s "$(realpath "$settings")" "$folder/.env"
  [ -n "$root" ] || as=(runuser -u rag-server --)
  # The unit's own defaults: what the settings name wins over them.
  grep -q '^VECTOR_DB_PATH=.' "$settings" || folders+=("VECTOR_DB_PATH=$root/var/lib/rag-server/vector_db")
  folders+=("STATE_DIRECTORY=$root/var/lib/rag-server" PYTHONDONTWRITEBYTECODE=1)
  local code=0
  if migrates "$settings"; then
    (cd "$folder" && "${as[@]}" env "${folders[@]}" PYTHONPATH="$release" \
      "$release/.venv/bin/python" -m rag.database migrate) || code=$?
  fi
  [ "$code" != 0 ] || (cd "$folder" && "${as[@]}" env "${folders[@]}" \
    "$release/.venv/bin/python" "$release/run_production.py" --check --running) || code=$?
  rm -rf "$folder"
  return "$code"
}

# systemd counts the starts that failed, and would refuse the good version because of what the bad one tried. An error
# here is a start that failed at once: nobody needs to wait for it.
restart_server() {
  systemctl reset-failed rag-server 2>/dev/null || true
  systemctl restart rag-server
}

prune_releases() {
  local kept=0 path
  for path in $(printf '%s\n' "$releases"/*Z | sort -r); do
    kept=$((kept + 1))
    if [ "$kept" -gt "$keep" ] && [ "$path" != "$(readlink "$live")" ] && [ "$path" != "$previous" ]; then
      rm -rf "$path"
    fi
  done
}

systemd_deploy() {
  previous=$(readlink "$live" || true)
  if [ "$action" = rollback ]; then
    release=$(readlink "$releases/previous") || { warn "no release before this one is kept"; exit 1; }
  else
    place_release
  fi
  check_release || { warn "the checks failed; ${previous:-nothing} still serves"; discard; exit 1; }
  point_to "$release"
  say "restarting with $release"
  if restart_server && wait_ready "$release/.venv/bin/python"; then
    [ -z "$previous" ] || ln -sfn "$previous" "$releases/previous"
    prune_releases
    say "$release is ready"
    return
  fi
  warn "$release did not start, or was not ready within $wait_s s; its log says why: journalctl -u rag-server"
  [ -n "$previous" ] || { warn "there is no version to return to"; exit 2; }
  point_to "$previous"
  { restart_server && wait_ready "$previous/.venv/bin/python"; } || { warn "$previous is not ready either"; exit 2; }
  discard
  warn "$previous serves again"
  exit 1
}

discard() { # what failed must not be taken for a version that once served
  [ "$action" = rollback ] || rm -rf "$release"
}

# --- compose: images by tag -----------------------------------------------------------------------------------------

has_image() { docker image inspect "$IMAGE:$1" >/dev/null 2>&1; }

compose_deploy() {
  [ -e .env ] || { warn "there is no .env here; run this where it is"; exit 1; }
  "${COMPOSE[@]}" config --quiet
  if [ "$action" = rollback ]; then
    has_image previous || { warn "no image before this one is kept"; exit 1; }
    docker tag "$IMAGE:previous" "$IMAGE:candidate"
  else
    docker build --tag "$IMAGE:candidate" "$source"
  fi
  previous=
  if has_image latest; then
    previous=$IMAGE:previous
    docker tag "$IMAGE:latest" "$previous"
  fi
  docker tag "$IMAGE:candidate" "$IMAGE:latest"
  local once=("${COMPOSE[@]}" run --rm --no-deps -T rag-server python)
  if { migrates .env && ! "${once[@]}" -m rag.database migrate; } ||
    ! "${once[@]}" run_production.py --check --running; then
    [ -z "$previous" ] || docker tag "$previous" "$IMAGE:latest"
    warn "the checks failed; what ran before still runs"
    exit 1
  fi
  "${COMPOSE[@]}" up --detach --no-build
  if wait_ready python3; then
    say "$IMAGE:latest is ready; the one before it is $IMAGE:previous"
    return
  fi
  warn "the new image was not ready within $wait_s s; docker compose logs rag-server says why"
  [ -n "$previous" ] || { warn "there is no version to return to"; exit 2; }
  docker tag "$previous" "$IMAGE:latest"
  "${COMPOSE[@]}" up --detach --no-build
  wait_ready python3 || { warn "the image before it is not ready either"; exit 2; }
  warn "the image before it serves again"
  exit 1
}

case $mode in
  # No && between them: it would switch off that a failure ends the script.
  place) place_release; point_to "$release"; say "placed $release" ;;
  systemd) systemd_deploy ;;
  compose) compose_deploy ;;
esac
