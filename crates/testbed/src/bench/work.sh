#!/bin/sh
# PID 1 of a clone and of its peer in the benchmark `work`. The one whose address ends in 1 does the jobs; the other three
# wait to be called by MPI.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
exec >/dev/console 2>&1 </dev/null
[ -e /proc/uptime ] || mount -t proc proc /proc
[ -e /sys/block ] || mount -t sysfs sysfs /sys
mkdir -p /dev/shm /dev/pts /run/sshd
mountpoint -q /dev/shm || mount -t tmpfs tmpfs /dev/shm
mountpoint -q /dev/pts || mount -t devpts devpts /dev/pts
ip link set lo up
for word in $(cat /proc/cmdline); do
  case $word in
    measured_address=*)
      ip address add "${word#*=}" dev eth0
      ip link set eth0 up
      ;;
  esac
done
address=$(ip -4 -o address show dev eth0 | sed -n 's/.* inet \([0-9.]*\).*/\1/p')
last=${address##*.}
net=${address%.*}
hostname "measured$last"

key=/usr/local/sbin/measured-key
chmod 600 $key
mkdir -p /etc/ssh
/usr/sbin/sshd -f /dev/null -h $key -o AuthorizedKeysFile=$key.pub -o StrictModes=no -o PermitRootLogin=yes \
  -o UsePAM=no -o UseDNS=no -o PidFile=none || echo "sshd: $?"

rest() { while :; do sleep 3600; done; }
case $last in
  *1) ;;
  *) rest ;;
esac
server=$net.100
others="$net.$((last + 1)) $net.$((last + 2)) $net.$((last + 3))"
ssh="-i $key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR"
for other in $others; do
  tries=0
  until ssh $ssh -o ConnectTimeout=5 root@"$other" true; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || { echo "$other does not let us in"; break; }
    sleep 1
  done
done

work=/var/tmp/measured
rm -rf $work
mkdir -p $work
cd $work || rest
cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
now() { date +%s%N; }
since() { echo "measured: $1 $((($(now) - $2) / 1000000))"; }

# A C program of so many functions, the same each time.
program() {
  awk -v functions="$1" 'BEGIN {
    print "#include <stdio.h>"
    for (at = 0; at < functions; at++) {
      size = 8 + at % 9
      printf "static unsigned work%d(unsigned a, unsigned b) {\n", at
      printf "  unsigned t[%d], s = %du;\n", size, at * 26544 % 65521
      printf "  for (unsigned i = 0; i < %d; i++) t[i] = (a ^ i * %du) + (b >> (i & 7));\n", size, at + 3
      printf "  for (unsigned i = 1; i < %d; i++) {\n    switch ((t[i] + s) %% 5) {\n", size
      printf "    case 0: s += t[i - 1] * %du; break;\n    case 1: s ^= t[i] << %d; break;\n", at + 7, at % 13 + 1
      printf "    case 2: t[i] += s / (t[i - 1] %% %du + 1); break;\n", at % 97 + 2
      printf "    case 3: for (unsigned j = 0; j < i; j++) s += t[j] & %du; break;\n", at * 31 + 255
      printf "    default: s = s * 1664525u + b; break;\n    }\n  }\n  return s;\n}\n"
    }
    print "int main(void) {\n  unsigned s = 1;"
    for (at = 0; at < functions; at++) printf "  s += work%d(s, %du);\n", at, at
    print "  printf(\"%u\\n\", s);\n  return 0;\n}"
  }'
}
program 80 >program.c
cold; from=$(now)
gcc -O2 -o program program.c && ./program && since compile "$from"

# The positions are the same on every machine.
from=$(now); estive-search 14 && since search "$from"

bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/pgbench)")
pg() { setpriv --reuid postgres --regid postgres --clear-groups env HOME=$work PATH="$PATH:$bin" "$@"; }
chmod 755 $work
mkdir -m 700 data
chown postgres:postgres data
pg initdb -D $work/data -A trust -U postgres --locale=C --no-sync >initdb.log || tail initdb.log
pg pg_ctl -D $work/data -w -t 120 -l $work/data/log -o "-k /dev/shm -c listen_addresses=" start >/dev/null || tail data/log
chmod 1777 /dev/shm
pg pgbench -h /dev/shm -U postgres -i -q -s 2 postgres
pg pgbench -h /dev/shm -U postgres -c 2 -T 8 postgres | sed -n 's/^tps = \([0-9.]*\).*/measured: pgbench \1/p'
pg pg_ctl -D $work/data -m immediate stop >/dev/null

for size in 64 1K 16K 128K 1M; do
  iperf3 --client "$server" --length $size --time 2 --format m |
    sed -n "s/.* \([0-9.]*\) Mbits\/sec.*receiver.*/measured: tcp_$size \1/p"
done

from=$(now)
mpirun --allow-run-as-root -np 4 --host "$address,$(echo "$others" | tr ' ' ,)" \
  --mca plm_rsh_args "$ssh" --mca btl tcp,self --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 \
  mpi-ray 400 300 5 && since ray_mpi "$from"
sync
echo "sized: compile 80 functions, $(wc -l <program.c) lines"
echo "sized: search 14 half-moves deep"
echo "sized: pgbench scale 2, 2 clients for 8 s"
echo "sized: tcp 2 s for each size of message"
echo "sized: ray_mpi 400 x 300 points, 25 rays each, 4 processes"
echo "measured: done"
rest
