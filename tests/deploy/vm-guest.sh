#!/usr/bin/env bash
# Inside the virtual machine of vm-test.sh: what docs/deployment.md tells an operator, with the real systemd.
#
# The model is the tests' emulator. Every step says what it found to hold; the first that does not ends the script.
set -Eeuo pipefail

CODE=/root/rag-server
STATE=/var/lib/rag-server
SESSION=vm-test-session-0001
SLOW=20 # times what a wait takes on a real machine

say() { printf '· %s\n' "$*"; }
fail() {
  printf '✗ %s\n' "$*"
  journalctl --no-pager -u rag-server -u rag-index -u rag-backup | grep -v access_log | tail -30 | cut -c1-300
  exit 1
}
trap 'fail "line $LINENO"' ERR
until_s() { # until_s SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1 * SLOW)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "in vain: $what"
    sleep 0.5
  done
}
refused() { if "$@" >/tmp/refused 2>&1; then fail "it should have failed: $*"; fi; }

status() { curl -s -o /dev/null -w '%{http_code}' "$@" || true; }
is_ready() { [ "$(status localhost:8000/ready)" = 200 ]; }
ask() { status localhost:8000/chat -H 'Content-Type: application/json' -d "$1"; }
chat() { ask "{\"message\": \"How do I change the rate limit? $*\"}"; }
remembered() { curl -s "localhost:8000/sessions/$SESSION/history" | grep -q 'How do I change the rate limit'; }
serves() { [ "$(curl -s localhost:8000/health | sed 's/.*"version":"\([^"]*\)".*/\1/')" = "$1" ]; }
live() { cat "$STATE/vector_db/CURRENT"; }
serves_build() { curl -s localhost:8000/ready | grep -q "\"$1\""; }
master() { systemctl show -p MainPID --value rag-server; }
workers() { pgrep -P "$(master)" | sort; }
others() { [ "$(workers)" != "$1" ]; }
two_others() { [ "$(workers | wc -l)" = 2 ] && [ -z "$(comm -12 <(workers) <(echo "$1"))" ]; }
two_serve() { curl -s localhost:8000/metrics | grep -q '^rag_workers 2'; }
logged() { journalctl -u "$1" --no-pager --since "@$since" | grep -q "$2"; }

visitors=()
visit() { # two visitors who ask until they are called back
  rm -f /tmp/enough /tmp/answers.*
  visitors=()
  for visitor in 1 2; do
    (until [ -e /tmp/enough ]; do chat "$visitor $RANDOM"; echo; done >"/tmp/answers.$visitor") &
    visitors+=($!)
  done
}
call_back() { # call_back LOST: how many of their questions may have got no answer
  local lost
  touch /tmp/enough
  wait "${visitors[@]}"
  answers=$(sort /tmp/answers.* | uniq -c | xargs)
  lost=$(sort /tmp/answers.* | grep -vc '^200$' || true)
  [[ $answers =~ \ 200$ && $lost -le $1 ]] || fail "answers by status: $answers"
}

say "$(systemctl --version | head -1), $(python3 --version)"
cp -r /mnt "$CODE"
cd "$CODE"

# --- install ---------------------------------------------------------------------------------------------------------
deploy/install-vm.sh install >/dev/null
release=$(readlink /opt/rag-server)
deploy/install-vm.sh install >/dev/null
[ "$(readlink /opt/rag-server)" = "$release" ]
[ "$(stat -c %U:%a "$STATE")" = rag-server:750 ]
say "installed, and once more without a change"

cat >/etc/systemd/system/emulator.service <<EMULATOR
[Service]
WorkingDirectory=$CODE
ExecStart=/opt/rag-server/.venv/bin/python -m tests.support.azure --port 9999 --chat-delay-ms 200
EMULATOR
systemctl daemon-reload
systemctl start emulator
until_s 10 "the emulator" curl -s localhost:9999/_control/stats
for _ in 1 2 3 4 5 6; do refused systemctl start rag-server; done
journalctl -u rag-server --no-pager | grep -q 'AZURE_OPENAI_CHAT_ENDPOINT is not set'
deployments=http://127.0.0.1:9999/openai/deployments version=api-version=2024-10-21
sed -i -e "s#^\(AZURE_OPENAI_CHAT_ENDPOINT\)=.*#\1=$deployments/emulated-chat/chat/completions?$version#" \
  -e "s#^\(AZURE_OPENAI_EMBEDDINGS_ENDPOINT\)=.*#\1=$deployments/emulated-embeddings/embeddings?$version#" \
  -e "s#^\(AZURE.*_API_KEY\)=.*#\1=emulated-key-0123456789abcdef#" /etc/rag-server.env
printf 'RATE_LIMIT_CHAT=100000/minute\nWORKERS=2\n' >>/etc/rag-server.env
mkdir -p /srv/site
cp docs/*.md /srv/site
systemctl start rag-index
refused systemctl start rag-server
systemctl reset-failed rag-server
systemctl enable --quiet --now rag-server rag-index.timer rag-backup.timer
[ "$(systemctl is-active rag-server)" = active ]
until_s 10 "/ready" is_ready
[ -z "$(find "$STATE" ! -user rag-server)" ]
say "without settings it says what is missing; with them it indexes, starts (Type=notify) and is ready"
by_hand() { # as docs/deployment.md says it
  systemd-run --pipe --wait --quiet -p User=rag-server -p EnvironmentFile=/etc/rag-server.env \
    -p StateDirectory=rag-server -p WorkingDirectory=/opt/rag-server -E VECTOR_DB_PATH=/var/lib/rag-server/vector_db \
    /opt/rag-server/.venv/bin/python "$@"
}
by_hand -m indexer info | grep -q "^live  $(live)"
by_hand -m indexer search "rate limit" | grep -qi "rate limit"
by_hand run_production.py --check | grep -q 'Everything is in place'
[ -z "$(find "$STATE" ! -user rag-server)" ]
say "commands by hand see what the server sees"
for unit in rag-server rag-index rag-backup; do
  exposed=$(LC_ALL=C.UTF-8 systemd-analyze security "$unit" --no-pager | sed -n 's/.*level for .*: \([0-9.]*\) .*/\1/p')
  python3 -c "import sys; sys.exit(not 0 < float('$exposed') <= 1.5)"
  say "$unit is exposed $exposed of 10"
done

# --- serve -----------------------------------------------------------------------------------------------------------
[ "$(ask "{\"message\": \"How do I change the rate limit?\", \"session_id\": \"$SESSION\"}")" = 200 ]
remembered
until_s 10 "two workers" two_serve
visit
before=$(workers)
until_s 10 "answers" test -s /tmp/answers.1
since=$(date +%s)
systemctl reload rag-server
# On a machine as slow as this one the checks may take too long; the operator then tries again.
reloaded() {
  two_others "$before" && return
  if logged rag-server 'the checks took over'; then
    since=$(date +%s)
    systemctl reload rag-server
  fi
  return 1
}
until_s 30 "two new workers" reloaded
until_s 10 "two workers" two_serve
call_back 0
say "a reload under load lost no request ($answers)"
visit
before=$(workers)
kill -KILL "$(workers | head -1)"
until_s 10 "another worker" others "$before"
until_s 10 "two workers" two_serve
# What the worker itself was answering when it was killed, at most one question of each visitor.
call_back 2
say "a killed worker is replaced, and the others serve on ($answers)"
before=$(master)
kill -KILL "$before"
another_master() { [ "$(master)" != 0 ] && [ "$(master)" != "$before" ]; }
until_s 10 "another master" another_master
until_s 10 "/ready" is_ready
remembered
say "after the death of the master systemd starts it again, and the conversation is remembered"

# --- index -----------------------------------------------------------------------------------------------------------
first=$(live)
since=$(date +%s)
spoilt=$(find "$STATE/vector_db/builds/$first" -name '*.npy' | head -1)
cp -a "$spoilt" /tmp/sound
cp -a "$spoilt" "$spoilt.new"
printf x | dd of="$spoilt.new" bs=1 seek=200 conv=notrunc status=none
mv "$spoilt.new" "$spoilt"
before=$(workers)
systemctl reload rag-server
until_s 10 "the refusal" logged rag-server "reload refused"
[ "$(workers)" = "$before" ]
is_ready
cp -a /tmp/sound "$spoilt.new"
mv "$spoilt.new" "$spoilt"
say "a reload onto a damaged index is refused"
echo '{"id": "one", "question": "How do I change the rate limit?", "relevant": ["nowhere.md"]}' >/srv/questions.jsonl
sed -i 's#^OPTIONS=.*#OPTIONS=--questions /srv/questions.jsonl --min-ndcg 0.3#' /etc/rag-index.env
printf '# News\n\nThe harbour opens at nine.\n' >/srv/site/news.md
refused systemctl start rag-index
[ "$(live)" = "$first" ]
sed -i s/nowhere.md/configuration.md/ /srv/questions.jsonl
mkdir -p /run/systemd/system/rag-index.timer.d
printf '[Timer]\nOnCalendar=\nOnActiveSec=1\nRandomizedDelaySec=0\nAccuracySec=1s\n' \
  >/run/systemd/system/rag-index.timer.d/soon.conf
systemctl daemon-reload
systemctl restart rag-index.timer
built() { [ "$(live)" != "$first" ] && [ "$(systemctl show -p ActiveState --value rag-index)" = inactive ]; }
until_s 20 "a build by the timer" built
until_s 10 "the new build" serves_build "$(live)"
say "a build that answers worse is not published; the next one, by the timer, is served without a reload"
good=$(live)
rm -r /run/systemd/system/rag-index.timer.d
mkdir -p /run/systemd/system/rag-index.service.d
cat >/usr/local/bin/spoil <<SPOIL
#!/bin/sh
set -e
file=\$(ls $STATE/vector_db/builds/\$(cat $STATE/vector_db/CURRENT)/*.npy | head -1)
cp "\$file" "\$file.new"; echo x >>"\$file.new"; mv "\$file.new" "\$file"
SPOIL
chmod 755 /usr/local/bin/spoil
{
  printf '[Service]\nExecStartPost=\nExecStartPost=/usr/local/bin/spoil\n'
  grep -A1 ^ExecStartPost /etc/systemd/system/rag-index.service
} >/run/systemd/system/rag-index.service.d/spoil.conf
systemctl daemon-reload
printf '# More\n\nIt closes at six.\n' >/srv/site/more.md
refused systemctl start rag-index
[ "$(live)" = "$good" ]
rm -r /run/systemd/system/rag-index.service.d
systemctl daemon-reload
until_s 10 "the build before it" serves_build "$good"
say "what cannot be read back after it was published is rolled back"

# --- recover ---------------------------------------------------------------------------------------------------------
systemctl start rag-backup
[ "$(stat -c %U:%a /var/lib/rag-server-backups/*.tar.gz)" = rag-server:600 ]
systemctl stop rag-server
mv "$STATE" "$STATE.lost"
install -d -o rag-server -g rag-server -m 750 "$STATE"
cd /opt/rag-server
sudo -u rag-server .venv/bin/python -m rag.backup restore --folder /var/lib/rag-server-backups \
  --state-dir "$STATE" --index "$STATE/vector_db" >/dev/null
systemctl start rag-server
until_s 10 "/ready" is_ready
remembered
serves_build "$good"
say "after docs/recovery.md the conversation and the index are back"

# --- deploy ----------------------------------------------------------------------------------------------------------
venv=$(realpath "$release/.venv")
version() { # version NUMBER [FILE]: the code as that version, with a file that is broken
  rm -rf "/root/$1"
  cp -r "$CODE" "/root/$1"
  sed -i "s/^VERSION = .*/VERSION = \"$1\"/" "/root/$1/rag/http/site.py"
  [ $# -eq 1 ] || echo 'raise RuntimeError("broken on purpose")' >>"/root/$1/$2"
}
deploy() { "/root/$1/deploy/deploy.sh" systemd --wait 120 --venv "$venv" >/tmp/deployed 2>&1; }
version 1.0.0
deploy 1.0.0
serves 1.0.0
version 1.0.1 rag/ops/preflight.py
refused deploy 1.0.1
serves 1.0.0
# So that the broken version uses up its starts while it is waited for, on a slow machine too.
mkdir -p /run/systemd/system/rag-server.service.d
printf '[Unit]\nStartLimitBurst=3\n' >/run/systemd/system/rag-server.service.d/soon.conf
systemctl daemon-reload
since=$(date +%s)
for file in gunicorn.conf.py rag_server.py; do
  version 1.0.2 "$file"
  refused deploy 1.0.2
  grep -q 'serves again' /tmp/deployed
  serves 1.0.0
  say "a version whose $file is broken is replaced by the one before it"
done
logged rag-server 'Start request repeated too quickly'
version 1.1.0
deploy 1.1.0
serves 1.1.0
/root/1.1.0/deploy/deploy.sh rollback systemd >/dev/null
serves 1.0.0
say "a good version is put into service, and taken back"

# --- undo ------------------------------------------------------------------------------------------------------------
cd "$CODE"
deploy/install-vm.sh uninstall >/dev/null 2>&1
for gone in /opt/rag-server /etc/systemd/system/rag-server.service; do [ ! -e "$gone" ]; done
for kept in "$STATE/conversations.sqlite3" /etc/rag-server.env; do [ -e "$kept" ]; done
[ -z "$(pgrep -u rag-server || true)" ]
deploy/install-vm.sh uninstall --purge >/dev/null
for gone in "$STATE" /etc/rag-server.env; do [ ! -e "$gone" ]; done
refused id rag-server
say "uninstalled, and purged"
echo "everything held, in $SECONDS s"
