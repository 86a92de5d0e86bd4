# Run in the lab as root: a recording of a service under load, then altaz killed at random moments,
# beside the tracing of somebody else. What the test looks at is written as `NAME value` lines.
set -u
T=/sys/kernel/tracing
redis-server --port 7777 --save '' --daemonize yes >/dev/null
sleep 1
redis-cli -p 7777 -r 100000000 -i 0.002 set k v >/dev/null 2>&1 &
SERVICE=$(pgrep -x redis-server)

trace-cmd record -B other -e sched:sched_process_exec -o /tmp/other.dat >/tmp/other.log 2>&1 &
OTHER=$!
sleep 3

# Everything of tracing, BPF, mounts and control groups that altaz could leave behind.
state() {
    for file in set_ftrace_filter set_ftrace_notrace set_ftrace_pid set_ftrace_notrace_pid \
        current_tracer tracing_on set_event kprobe_events uprobe_events trace_clock buffer_size_kb; do
        echo "$file: $(cat $T/$file 2>&1)"
    done
    for instance in $T/instances/*; do
        echo "$instance"
        for file in set_ftrace_filter set_ftrace_notrace set_ftrace_pid current_tracer tracing_on set_event; do
            echo "$file: $(cat $instance/$file)"
        done
    done
    echo "functions that call a tracer: $(grep -c . $T/enabled_functions)"
    sort /proc/self/mounts
    find /sys/fs/cgroup -type d | sort
    perl /bpf-ids.pl | cut -d' ' -f1 | sort | uniq -c
}
# The state of each event and option as well, and every name in tracefs: thousands of files, which take a while.
in_full() {
    state
    find $T -not -path '*/per_cpu/*' | sort
    grep -rs . --include=enable --include=filter --include=trigger $T/events $T/instances | sort
    grep -s . $T/options/* $T/instances/*/options/*
}
state >/tmp/before
in_full >/tmp/before.full
echo "full-lines $(grep -c . /tmp/before.full)"

altaz record -p $SERVICE --duration 25s -o /tmp/redis.altaz >/tmp/record.log 2>&1
echo "record $?"
sed -nE 's/^host-kernel: ([0-9]+) functions.*/functions \1/p' /tmp/record.log
echo "lost $(grep -c 'no event lost' /tmp/record.log)"
altaz report /tmp/redis.altaz -o json >/tmp/report.json
echo "report $?"
sed -nE 's/^calibration +([0-9,]+) of ([0-9,]+) calls.*/calibration \1 \2/p' <<END
$(altaz report /tmp/redis.altaz)
END
state >/tmp/after
diff /tmp/before /tmp/after >/tmp/diff && echo 'clean 1' || { echo 'clean 0'; cat /tmp/diff; }

for kill in $(seq "$KILLS"); do
    userland=
    [ $((kill % 2)) = 0 ] && userland=--userland
    altaz record -p $SERVICE $userland -o /tmp/killed.altaz >/dev/null 2>&1 </dev/null &
    ALTAZ=$!
    ms=$(($(od -An -N2 -tu2 /dev/urandom) % 5000))
    sleep "$(awk "BEGIN { print $ms / 1000 }")"
    kill -9 $ALTAZ
    wait $ALTAZ 2>/dev/null
    altaz doctor >/dev/null 2>&1
    state >/tmp/after
    diff /tmp/before /tmp/after >/tmp/diff && echo 'killed 1' || { echo "killed 0 after $ms ms"; cat /tmp/diff; }
done
in_full >/tmp/after.full
diff /tmp/before.full /tmp/after.full >/tmp/diff && echo 'in-full 1' || { echo 'in-full 0'; head -100 /tmp/diff; }
kill -INT $OTHER
wait $OTHER
echo "other $?"
echo "other-lost $(trace-cmd report -i /tmp/other.dat 2>&1 | grep -ciE 'dropped|lost')"
echo "other-events $(trace-cmd report -i /tmp/other.dat 2>/dev/null | grep -c sched_process_exec)"
echo "service $(redis-cli -p 7777 ping)"
