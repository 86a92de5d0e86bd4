#!/bin/sh
# Runs in the lab, as root: redis at full load, `altaz watch` beside it for SECONDS once it has learned what is normal.
# Leaves what it saw in /root/out; nothing is judged here.
#   soak.sh SECONDS REST
# REST: seconds without altaz, before and after.
set -u
SECONDS_=$1
REST=$2
OUT=/root/out
mkdir -p $OUT
cd $OUT || exit 1

clock() { cut -d' ' -f1 /proc/uptime; }
answered() { redis info stats | tr -d '\r' | sed -n 's/^total_commands_processed://p'; }
redis() { redis-cli -s /run/redis.sock "$@"; }
# speed FILE: `TIME ANSWERED` every five seconds, for REST seconds.
speed() {
    for _ in $(seq 0 5 "$REST"); do
        echo "$(clock) $(answered)" >>"$1"
        sleep 5
    done
}
# new CALL COMMAND…: something for which redis makes a system call that it has not made before.
new() {
    call=$1
    shift
    echo "$call $(date +%s.%N)" >>asked
    redis "$@" >>asked.log 2>&1
}

mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
cd /root || exit 1
taskset -c 0 redis-server --save '' --appendonly no --unixsocket /run/redis.sock --daemonize yes >/dev/null
cd $OUT || exit 1
until redis ping >/dev/null 2>&1; do sleep 0.2; done
# No persistence of its own, so that nothing is new by chance.
REDIS=$(pgrep -x redis-server)
taskset -c 1 redis-benchmark -t set -P 1 -c 50 -n 2000000000 -q >load.log 2>&1 </dev/null &
LOAD=$!
python3 /root/answers.py answers 2>answers.log &
ANSWERS=$!
sleep 5
speed before

mkfifo pipe
python3 /root/stamp.py <pipe >news &
STAMP=$!
/root/altaz watch -p "$REDIS" --quiet-time 10s --metrics 127.0.0.1:9188 >pipe 2>log </dev/null &
WATCH=$!
BEGIN=$(clock)
until grep -q '"learned"' news || [ "$(awk "BEGIN { print int($(clock) - $BEGIN) }")" -ge 900 ]; do
    # Being asked for its numbers is normal, too.
    answered >/dev/null
    sleep 2
done
echo "$BEGIN $(clock)" >learned
I=0
while [ $I -lt "$SECONDS_" ]; do
    sleep 5
    I=$((I + 5))
    memory=$(awk '/VmRSS/ { print $2 }' /proc/$WATCH/status)
    ticks=$(awk '{ print $14 + $15 }' /proc/$WATCH/stat)
    echo "$(clock) $(answered) $memory $ticks" >>samples
    [ $((I / 5)) = $((SECONDS_ / 20)) ] && new fsync save
    [ $((I / 5)) = $((SECONDS_ / 10)) ] && new listen config set port 6380
    [ $((I / 5)) = $((SECONDS_ * 3 / 20)) ] && new clone bgsave
done
busybox wget -q -O - http://127.0.0.1:9188/metrics >metrics
kill -INT $WATCH
wait $WATCH
echo $? >rc
wait $STAMP
rm pipe
speed after
kill -TERM $ANSWERS
wait $ANSWERS
kill $LOAD
ls /sys/kernel/tracing/instances >instances
dmesg | grep -iE 'warn|bug:|oops:|call trace|segfault|traps:' >dmesg
tar -C /root -cf /root/out.tar out
