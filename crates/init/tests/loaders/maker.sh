#!/bin/sh
# Runs as the init of a guest with cryptsetup, lvm and mdadm: the machine's own kernel may have none of what they need.
# Its disks are known by their serials; each gets a file system with a file that tells it, and the probe.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DM_DISABLE_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1
end() {
    echo "fact made=$?"
    echo "fact end"
    sync
    echo o > /proc/sysrq-trigger
    # No program: the disks may be off before it is read, and a first process that ends is a panic.
    while :; do read -r _ < /dev/console || :; done
}
trap end EXIT
mkdir -p /run /mnt
for module in /modules/*; do
    insmod "$module"
done

disk() {
    echo "/dev/$(basename "$(dirname "$(grep -lx "$1" /sys/block/*/serial)")")"
}
fill() {
    mkfs.ext4 -q -F "$2"
    mount -t ext4 "$2" /mnt
    mkdir /mnt/etc /mnt/bin
    cp /probe /mnt/bin/
    printf %s "$1" > "/mnt/etc/layer-$1"
    umount /mnt
}
encrypt() {
    printf secret | cryptsetup luksFormat -q "$@" --pbkdf-force-iterations 1000 --key-file=-
}
open() {
    printf secret | cryptsetup open --type=luks --key-file=- "$1" "$2"
}
lvm() {
    command lvm "$@" --config 'activation{udev_sync=0 udev_rules=0 monitoring=0} backup{backup=0 archive=0}'
}
array() {
    node=$1
    shift
    mdadm --create "$node" --run --homehost=maker --metadata="${metadata:-1.2}" --assume-clean --raid-devices=2 "$@"
}

encrypt --type=luks1 "$(disk luks1)"
open "$(disk luks1)" one
fill luks1 /dev/mapper/one

encrypt --type=luks2 --pbkdf=pbkdf2 "$(disk luks2)"
open "$(disk luks2)" two
fill luks2 /dev/mapper/two

lvm vgcreate my-data "$(disk lvm-a)" "$(disk lvm-b)"
lvm lvcreate -Zn -Wn -an --extents 100%FREE --name root my-data
lvm lvchange -ay my-data/root
fill lvm /dev/my-data/root
lvm lvchange -an my-data/root

lvm vgcreate vault "$(disk vault)"
lvm lvcreate -Zn -Wn --extents 100%FREE --name crypt vault
encrypt --type=luks2 --pbkdf=pbkdf2 /dev/vault/crypt
open /dev/vault/crypt three
fill vault /dev/mapper/three
cryptsetup close three
lvm lvchange -an vault/crypt

array /dev/md/mirror --name=mirror --level=1 --bitmap=none "$(disk mirror-a)" "$(disk mirror-b)"
fill mirror /dev/md/mirror
mdadm --stop /dev/md/mirror

# Their metadata stands at their end: each half looks like the whole.
metadata=1.0 array /dev/md/late --name=late --level=1 --bitmap=none "$(disk late-a)" missing
mkfs.ext4 -q -F -L late /dev/md/late
mdadm --stop /dev/md/late
metadata=0.90 array /dev/md90 --level=1 --bitmap=none "$(disk old-a)" missing
mkfs.ext4 -q -F -L old /dev/md90
mdadm --stop /dev/md90

array /dev/md/stripe --name=stripe --level=0 --uuid=01234567:89abcdef:01234567:89abcdef \
    "$(disk stripe-a)" "$(disk stripe-b)"
fill stripe /dev/md/stripe
mdadm --stop /dev/md/stripe

array /dev/md0 --level=1 --bitmap=none "$(disk paper-a)" "$(disk paper-b)"
array /dev/md1 --level=1 --bitmap=none "$(disk paper-c)" "$(disk paper-d)"
lvm vgcreate vg /dev/md0 /dev/md1
lvm lvcreate -Zn -Wn --extents 100%FREE --name volume vg
fill paper /dev/vg/volume
lvm lvchange -an vg/volume
mdadm --stop /dev/md0
mdadm --stop /dev/md1
