#!/usr/bin/env bash
# The product on a virtual machine with a real systemd: `make vm-test`, as root on Debian, on amd64.
#
# Makes a small Debian 12, whose Python is the oldest that is supported, with the packages that pip needs in a folder,
# and boots it with QEMU, without a network. A unit of the machine runs vm-guest.sh and writes to the serial console.
# Takes about a quarter of an hour in software; ACCEL=kvm is faster where there is one. The root is kept for the next
# run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

KEPT=${1:-/var/tmp/rag-server-vm-test}
SUITE=bookworm
PACKAGES=systemd,systemd-sysv,udev,dbus,python3,python3-venv,curl,sudo,procps,linux-image-cloud-amd64,initramfs-tools
AT_MOST_S=3600

say() { printf '· %s\n' "$*"; }
fail() { printf '✗ %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "making a machine needs root: sudo make vm-test"
for program in qemu-system-x86_64 debootstrap mke2fs unshare; do
  command -v "$program" >/dev/null ||
    fail "$program is missing; on Debian: sudo apt-get install qemu-system-x86 debootstrap"
done

mkdir -p "$KEPT"
work=$(mktemp -d "$KEPT/run.XXXXXX")
machine=
clean_up() {
  [ -z "$machine" ] || kill "$machine" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT

root=$KEPT/root
if [ ! -e "$root/etc/rag-server-vm-test" ]; then
  say "a small Debian, once"
  rm -rf "$root"
  debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root" >"$work/log" ||
    { tail -20 "$work/log" >&2; fail "debootstrap"; }
  rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists"
  : >"$root/etc/machine-id"
  echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
  echo localhost >"$root/etc/hostname"
  printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
  printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$root/etc/pip.conf"
  cat >"$root/etc/systemd/system/vm-test.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c "mount -o ro /dev/vdb /mnt && /mnt/tests/deploy/vm-guest.sh"
ExecStopPost=/bin/systemctl poweroff --no-block
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
TimeoutStartSec=infinity
[Install]
WantedBy=graphical.target
UNIT
  chroot "$root" systemctl --quiet enable vm-test
  touch "$root/etc/rag-server-vm-test"
fi

if ! cmp -s requirements-prod.lock "$root/wheels/requirements-prod.lock"; then
  say "the packages, for the Python of that Debian"
  rm -rf "$root/wheels"
  mkdir "$root/wheels"
  # What this machine's own pip needs to reach its packages, that one needs too.
  # shellcheck disable=SC2016 # the inner shell reads its own arguments
  unshare --mount --propagation private bash -euc '
    root=$1
    mount -t tmpfs tmpfs "$root/tmp"
    cp requirements-prod.lock "$root/tmp"
    for path in /etc/ssl/certs /etc/resolv.conf /etc/pip.conf; do
      [ -e "$path" ] || continue
      [ -e "$root$path" ] || { [ -d "$path" ] && mkdir -p "$root$path" || touch "$root$path"; }
      mount --bind "$path" "$root$path"
    done
    [ -e /etc/pip.conf ] || mount --bind /dev/null "$root/etc/pip.conf"
    chroot "$root" python3 -m venv /tmp/pip
    chroot "$root" /tmp/pip/bin/pip --disable-pip-version-check -q download --require-hashes --only-binary :all: -d /wheels \
      -r /tmp/requirements-prod.lock
  ' bash "$root" >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; fail "pip download"; }
  cp requirements-prod.lock "$root/wheels/"
fi

say "booting"
mkdir "$work/code"
# What git ignores is the developer's own.
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x --no-same-owner -C "$work/code"
truncate -s 5G "$work/root.img"
truncate -s 200M "$work/code.img"
mke2fs -q -t ext4 -d "$root" "$work/root.img"
mke2fs -q -t ext4 -d "$work/code" "$work/code.img"
qemu-system-x86_64 -accel "${ACCEL:-tcg}" -cpu max -m 3G -smp 2 -display none -no-reboot -nic none \
  -kernel "$root"/boot/vmlinuz-* -initrd "$root"/boot/initrd.img-* -append "root=/dev/vda rw console=ttyS0" \
  -drive "file=$work/root.img,if=virtio,format=raw,cache=unsafe" -drive "file=$work/code.img,if=virtio,format=raw" \
  -device virtio-rng-pci -serial "file:$work/boot" -serial "file:$work/said" </dev/null &
machine=$!
touch "$work/said"
tail --pid="$machine" -n +1 -f "$work/said" &
timeout "$AT_MOST_S" tail --pid="$machine" -f /dev/null || fail "the machine did not end within $AT_MOST_S s"
wait "$machine" || { tail -20 "$work/boot" >&2; fail "QEMU"; }
machine=
grep -q "^everything held" "$work/said" || { tail -5 "$work/boot" >&2; fail "see above"; }
