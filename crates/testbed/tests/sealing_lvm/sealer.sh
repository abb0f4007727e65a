#!/bin/sh
# Runs as the init of a guest with lvm: seals file systems on logical volumes that are written to all the while. What
# came of it is a tar archive on the disk `results`; what it means is the host's to say.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
export DM_DISABLE_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 LVM_SYSTEM_DIR=/lvm
end() {
    tar -C /out -cf "$(disk results)" . && echo "fact results=written"
    echo "fact end"
    sync
    echo o > /proc/sysrq-trigger
    # No program: the disks may be off before it is read, and a first process that ends is a panic.
    while :; do read -r _ < /dev/console || :; done
}
disk() {
    echo "/dev/$(basename "$(dirname "$(grep -lx "$1" /sys/block/*/serial)")")"
}
volumes() {
    lvm lvs --noheadings --options lv_name my-data | tr -d ' ' | sort
}
# Keeps two files of a tree in step.
start_writer() {
    /writer "$1/a/first" "$1/z/last" &
    writer=$!
    until test -s "$1/z/last"; do :; done
}
end_writer() {
    kill -9 "$writer"
    wait "$writer"
}
# A tree with files that say who they are, and a directory with something mounted over something.
fill() {
    mkdir -p "$1/a" "$1/bulk" "$1/z" "$1/other"
    for number in 1 2 3 4 5 6 7 8; do
        seq ${number}00000 ${number}99999 > "$1/bulk/$number"
    done
    echo covered > "$1/other/covered"
}
# As `seal NAME ROOT ARGUMENTS`, in the background; where they are set, with programs from `tools`, into `images`.
begin() {
    name=$1
    tree=$2
    shift 2
    mkdir -p "/out/$name"
    cat "$tree/z/last" > "/out/$name/before"
    PATH=${tools:-$PATH} /estive --output json seal "$tree" "$@" --no-scan --out "${images:-/out}/$name" \
        > "/out/$name/sealed" 2> "/out/$name/said" &
    sealing=$!
}
finish() {
    wait "$2"
    echo $? > "/out/$1/status"
    cat "$3/z/last" > "/out/$1/after"
    volumes > "/out/$1/volumes"
    echo "fact $1=done"
}
seal() {
    begin "$@"
    finish "$1" "$sealing" "$2"
}
# Waits until the file system in the snapshot is mounted beside its origin, and stops the seal.
stop_when_mounted() {
    until set -- /sys/fs/ext4/dm-* && test $# -gt 1; do
        # It came to nothing.
        test -s "/out/$name/sealed" && return
    done
    kill -STOP "$sealing"
}

echo 1 > /proc/sys/kernel/printk
mkdir -p /run/lock /out /thick /thin /bound
mount -t tmpfs -o mode=755 out /out
trap end EXIT
for module in /modules/*; do
    insmod "$module"
done
{
    lvm vgcreate --physicalextentsize 1m my-data "$(disk group)"
    lvm lvcreate -Zn -Wn --yes --size 64m --name web-root my-data
    lvm lvcreate --yes --type thin-pool --size 96m --poolmetadatasize 4m --name pool my-data
    lvm lvcreate --yes --thin --virtualsize 320m --name thin my-data/pool
    mkfs.ext4 -q -F /dev/my-data/web-root
    mkfs.xfs -q /dev/my-data/thin
    mount -t ext4 /dev/my-data/web-root /thick
    mount -t xfs /dev/my-data/thin /thin
} > /out/made 2>&1
fill /thick/srv/web
fill /thin/web
dd if=/dev/zero of=/thick/hog bs=1M count=8 conv=fsync 2>> /out/made
mount --bind /thick/srv/web /bound
mount -t tmpfs other /bound/other
mount -t tmpfs other /thin/web/other
echo other > /bound/other/file
volumes > /out/volumes
echo "fact made=done"

start_writer /bound
seal thick /bound
seal live /bound --no-snapshot

# The image is written to the volume that it is of.
images=/thick
seal own /bound
images=''
mv /thick/own/* /out/own/

# More is written than the snapshot has room for, while it is read.
begin overflow /bound --snapshot-share 1
stop_when_mounted
dd if=/dev/urandom of=/thick/hog bs=1M count=8 conv=notrunc,fsync 2>> /out/made
lvm lvs --noheadings --binary --options lv_name,lv_size,lv_snapshot_invalid my-data > /out/overflow/invalid
kill -CONT "$sealing"
finish overflow "$sealing" /bound

# Killed while it reads: what it leaves, the next one removes.
begin killed /bound
stop_when_mounted
kill -9 "$sealing"
finish killed "$sealing" /bound
echo /sys/fs/ext4/dm-* > /out/killed/mounted
seal after /bound

# Stopped in order.
begin stopped /bound
stop_when_mounted
kill -TERM "$sealing"
kill -CONT "$sealing"
finish stopped "$sealing" /bound
ls -A /out/stopped > /out/stopped/files

# Not so what somebody reads.
begin beside /bound
beside=$sealing
stop_when_mounted
seal meanwhile /bound
kill -CONT "$beside"
finish beside "$beside" /bound
end_writer

# What is kept of another volume, and was changed when the snapshot was there.
begin kept /bound --keep /other
stop_when_mounted
echo changed >> /bound/other/file
kill -CONT "$sealing"
finish kept "$sealing" /bound

start_writer /thin/web
seal thin /thin/web
end_writer

# No room, no tools.
lvm lvcreate -Zn -Wn --yes --extents 100%FREE --name filler my-data >> /out/made 2>&1
seal full /bound
tools=/nowhere
seal missing /bound
