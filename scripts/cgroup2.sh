#!/usr/bin/env bash
# Run a command from this checkout on a host with cgroup v2: a virtual machine with a copy of this machine's system, Debian's
# kernel, systemd and Docker. Without a network. By KVM where there is one, otherwise by emulation, which is so slow that a
# whole deployment misses its tests' deadlines; tests/pools/test_cgroups.py takes some minutes.
# usage (root; needs qemu-system-x86, busybox-static, 12 GB of disk): scripts/cgroup2.sh COMMAND [ARGUMENT...]
set -euo pipefail
for tool in qemu-system-x86_64 busybox mkfs.ext4 apt-get systemctl dockerd; do
  command -v "$tool" >/dev/null || { echo "cgroup2: $tool is missing" >&2; exit 1; }
done
checkout=$PWD
python=$(readlink -f .venv/bin/python)
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/bh-cgroup2-XXXXXX")
clean() { umount "$dir/root" 2>/dev/null || true; rm -rf --one-file-system "$dir"; }
trap clean EXIT
cd "$dir"
mkdir root debs start start/bin

# The kernel, and what a container of a system lacks; none of it is installed here.
kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}')
(cd debs && apt-get download -q "$kernel" kmod libkmod2 udev apparmor >apt.log 2>&1) || { cat debs/apt.log >&2; exit 1; }
for deb in debs/*.deb; do dpkg-deb -x "$deb" debs/all; done

# The system: this one, its Python and this checkout, without what is large and not needed.
truncate -s 24G disk
mkfs.ext4 -q -E lazy_itable_init=1 disk
mount -o loop disk root
venv=$(readlink -f "$checkout/.venv")
{ tar -C / --one-file-system --exclude='usr/lib/google-cloud-sdk' --exclude='usr/lib/jvm' --exclude='usr/lib/llvm-*' \
  --exclude='usr/share/doc' --exclude='var/lib/docker' --exclude='var/lib/containerd' --exclude="${checkout#/}/.git" \
  -cf - bin lib lib64 sbin usr etc var/lib "${checkout#/}" "${venv#/}" "$(dirname "$(dirname "${python#/}")")" \
  || [ $? = 1 ]; } | tar -C root -xf - # 1: a file was changed meanwhile
tar -C debs/all -cf - . | tar -C root --keep-directory-symlink -xf -
mkdir -p root/{proc,sys,dev,run,tmp,root,mnt,var/tmp,var/log,vm}
chmod 1777 root/tmp root/var/tmp
ln -sfn /run root/var/run
: >root/etc/fstab
version=$(basename debs/all/lib/modules/*)
chroot root /sbin/depmod "$version"

# What runs in it: systemd, the engine, then the command, whose output and exit code come by the second serial line.
printf '#!/bin/bash\ncd %q\nexport HOME=/root PATH=%q\nip link set lo up\n%s\necho "exit $?"\nsystemctl poweroff\n' \
  "$checkout" "$PATH:/usr/sbin:/sbin" "$(printf '%q ' "$@")" >root/vm/run
cat >root/etc/systemd/system/vm.service <<'UNIT'
[Unit]
Requires=docker.service
After=docker.service dbus.service
Wants=dbus.service
[Service]
ExecStart=/bin/bash /vm/run
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
UNIT
umount root

# Its first steps: the disk's driver, then systemd.
cp "$(command -v busybox)" start/bin/
ln -s busybox start/bin/sh
modules="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk"
for name in $modules; do cp "$(find debs/all/lib/modules -name "$name.ko")" start/; done
cat >start/init <<INIT
#!/bin/sh
b=/bin/busybox
\$b mkdir /proc /sys /dev /new
\$b mount -t devtmpfs dev /dev
for name in $modules; do \$b insmod /\$name.ko; done
until \$b mount -t ext4 /dev/vda /new; do \$b sleep 1; done
\$b mount --move /dev /new/dev
exec \$b switch_root /new /lib/systemd/systemd
INIT
chmod +x start/init
(cd start && find . | busybox cpio -o -H newc 2>/dev/null) >initrd

accel=tcg,thread=multi
if grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]; then accel=kvm; fi
qemu-system-x86_64 -M q35 -accel "$accel" -cpu max -smp 2 -m 6144 -nodefaults -no-reboot -display none \
  -kernel debs/all/boot/vmlinuz-* -initrd initrd -append "console=ttyS0 panic=-1 net.ifnames=0 systemd.unit=vm.service" \
  -drive file=disk,format=raw,if=virtio,cache=unsafe -serial file:console -serial stdio </dev/null | sed -u 's/\r$//' | tee said
code=$(sed -n 's/^exit \([0-9]*\)$/\1/p' said | tail -1)
[ -n "$code" ] || { tail -30 console >&2; echo "cgroup2: the machine ended without a result" >&2; exit 1; }
exit "$code"
