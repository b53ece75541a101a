#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# deb-test.sh
#
# Installs the packages in a Debian, as an operator does, and boots that: makes the root
# directory of the Debian that this machine has, has apt install the packages from out/deb
# in it, and puts a drop-in for the knobs there. In QEMU the module must then be loaded at
# boot, the knobs be as the drop-in says, and free memory be hinted; and when the packages
# are removed, nothing of them must be left. Says what came out as TAP. Needs root, for the
# root directory.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
out=$root/out/deb-test
lock "$root/out/lock-deb-test"
# Longest time for the guest, in seconds: without KVM it takes some minutes.
limit=1200

[ "$(id -u)" = 0 ] || die "this must be root, to make a root directory" "run it with sudo"
"$root/scripts/setup.sh" mmdebstrap:mmdebstrap e2fsprogs:mkfs.ext4
export PAGE_HINTING_SET_UP=1
run "$root/scripts/build-deb.sh" >/dev/null
rm -rf --one-file-system "$out"
make_dir "$out"
need_space "$out" 3500 "a root file system"
scratch=$(mktemp -d -p "$out")
# shellcheck disable=SC2016
at_exit 'rm -rf --one-file-system "$scratch"'

# --- The root file system ----------------------------------------------------

make_dir "$scratch/add/etc/tmpfiles.d"
echo 'w /sys/kernel/mm/page_hinting/min_order - - - - 7' >"$scratch/add/etc/tmpfiles.d/page_hinting.conf"
make_dir "$scratch/add/etc/systemd/system/multi-user.target.wants"
cat >"$scratch/add/etc/systemd/system/check.service" <<-'END'
	[Unit]
	Description=Check of page_hinting
	After=basic.target
	[Service]
	Type=oneshot
	ExecStart=/usr/local/sbin/check
	StandardOutput=file:/dev/ttyS1
	StandardError=inherit
END
ln -s ../check.service "$scratch/add/etc/systemd/system/multi-user.target.wants/check.service"
make_dir "$scratch/add/usr/local/sbin"
# What it prints goes over a serial port of its own.
cat >"$scratch/add/usr/local/sbin/check" <<-'END'
	#!/bin/bash
	sysfs=/sys/kernel/mm/page_hinting
	hinted() { [ "$(cat $sysfs/stats/hinted_kb)" -ge $(($1)) ]; }
	point() { # NAME COMMAND...
	    local name=$1
	    shift
	    n=$((n + 1))
	    if "$@" >/tmp/said 2>&1; then echo "ok $n $name"; else
	        sed 's/^/# /' /tmp/said
	        echo "not ok $n $name"
	    fi
	}
	memory_is_hinted() {
	    local before end=$((SECONDS + 120))
	    before=$(cat $sysfs/stats/hinted_kb)
	    head -c 200M /dev/zero >/dev/shm/file && rm /dev/shm/file
	    until hinted before+150000; do [ $SECONDS -lt $end ] || return; sleep 1; done
	}
	metrics_are_written() {
	    local dir=/var/lib/prometheus/node-exporter end=$((SECONDS + 120))
	    mkdir -p $dir && systemctl enable --now page-hinting-metrics.timer || return
	    until grep -qs '^page_hinting_up 1$' $dir/page_hinting.prom; do [ $SECONDS -lt $end ] || return; sleep 1; done
	    systemctl disable --now page-hinting-metrics.timer
	}
	removed() {
	    DEBIAN_FRONTEND=noninteractive apt-get -y purge page-hinting "page-hinting-modules-$(uname -r)" &&
	        rmmod page_hinting && ! modprobe page_hinting &&
	        ! find /usr/lib /usr/share /usr/bin \( -iname '*page*hinting*' -o -iname '*hintstat*' \) \
	            ! -path "*/modules/$(uname -r)" ! -path '*/linux-image-*' | grep .
	}
	no_complaint() { ! dmesg | grep -E 'WARNING|BUG|Oops|Call Trace'; }
	n=0
	echo "# $(uname -sr), $(. /etc/os-release; echo "$PRETTY_NAME"), $(systemctl --version | head -n 1)"
	point "the module is loaded at boot" grep -q '^page_hinting ' /proc/modules
	point "what loads modules at boot has not failed" systemctl is-active systemd-modules-load
	point "the knob is as the drop-in says" test "$(cat $sysfs/min_order)" = 7
	point "the status is a good one" grep -qE '^(idle|hinting|paced)$' $sysfs/status
	point "free memory is hinted" memory_is_hinted
	point "hintstat shows it" hintstat status -o json
	point "hintstat flushes" hintstat flush --timeout 60s
	point "the timer writes metrics" metrics_are_written
	point "the manual page is there" test -s /usr/share/man/man1/hintstat.1.gz
	point "no unit has failed" bash -c '! systemctl --failed --no-legend | grep .'
	point "the packages can be removed" removed
	point "the kernel does not complain" no_complaint
	echo "1..$n"
	systemctl poweroff
END
chmod 755 "$scratch/add/usr/local/sbin/check"

codename=$(debian_codename)
mapfile -t packages < <(compgen -G "$root/out/${tag}deb/*.deb" | grep -v /linux-headers-)
[ ${#packages[@]} = 3 ] || die "there are not three packages to install: ${packages[*]}"
make_dir "$scratch/debs"
cp "${packages[@]}" "$scratch/debs/"
chmod 755 "$scratch" "$scratch/debs"
# mmdebstrap gives the directory to the hooks, as "$1".
# shellcheck disable=SC2016
progress "$out/mmdebstrap.log" '^(Get|Unpacking|Setting up)' "a Debian $codename with the packages" \
	unshare --mount --propagation private mmdebstrap --mode=root --variant=minbase --include=systemd-sysv,udev,kmod,dbus,man-db \
	--customize-hook="mkdir \"\$1/debs\" && cp $scratch/debs/*.deb \"\$1/debs/\"" \
	--customize-hook='chroot "$1" sh -c "apt-get install -y --no-install-recommends /debs/*.deb"' \
	--customize-hook='rm -r "$1/debs"; chroot "$1" passwd -d root' \
	--customize-hook="cp -a $scratch/add/. \"\$1/\"" \
	"$codename" "$scratch/root" "$(debian_mirror)" || {
	disk_full "$scratch" || tail -n 30 "$out/mmdebstrap.log" >&2
	die "the packages were not installed in a Debian" "the whole log: $out/mmdebstrap.log"
}
image=$scratch/root.img
truncate -s 2G "$image"
run mkfs.ext4 -q -F -d "$scratch/root" "$image"
kernel=$(find "$scratch/root/boot" -name 'vmlinuz-*')
[ -f "$kernel" ] || die "the packages brought no kernel" "see $out/mmdebstrap.log"

# --- The guest ---------------------------------------------------------------

: >"$out/check.tap"
# /dev/kvm may be there where no guest runs by it: the CPU's flags tell, as in the lab.
accel=(-accel tcg -cpu "max,erms=off,fsrm=off")
if grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && [ -w /dev/kvm ]; then
	accel=(-accel kvm -cpu host)
fi
status=0
progress "$out/qemu.log" . "the Debian guest" \
	timeout "$limit" qemu-system-x86_64 -machine q35 "${accel[@]}" -smp 2 -m 1G \
	-nodefaults -no-reboot -display none -kernel "$kernel" \
	-append "root=/dev/vda rw console=ttyS0 panic=-1 no_timer_check" \
	-drive "if=virtio,format=raw,file=$image" \
	-device virtio-balloon-pci,free-page-reporting=on \
	-serial "file:$out/serial.log" -serial "file:$out/check.tap" || status=$?
case $status in
0) ;;
124)
	tail -n 30 "$out/serial.log" >&2
	die "the guest did not end by itself within $limit s" "its console: $out/serial.log"
	;;
*)
	tail -n 10 "$out/qemu.log" >&2
	die "QEMU ended with status $status"
	;;
esac
tr -d '\r' <"$out/check.tap"
passed=$(grep -c '^ok ' "$out/check.tap" || true)
failed=$(grep -c '^not ok ' "$out/check.tap" || true)
plan=$(tr -d '\r' <"$out/check.tap" | sed -nE 's/^1\.\.([0-9]+)$/\1/p')
printf '%d passed, %d failed, 0 skipped\n' "$passed" "$failed"
if [ "$failed" != 0 ] || [ "$passed" != "${plan:-no plan}" ]; then
	die "not all is well in a Debian with the packages" "the guest's console: $out/serial.log"
fi
