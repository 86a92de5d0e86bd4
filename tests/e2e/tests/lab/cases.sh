#!/bin/sh
# Runs in the lab, as root: everything that tests/record_cases_lab.rs checks, one section after the other.
# A section leaves what it saw in /root/out/SECTION: logs, exit codes, profiles. Nothing is judged here.
#   cases.sh [SECTION…]
set -u
. /root/sections.sh

# record NAME ARGUMENTS…: exit code in NAME.rc, messages in NAME.log, profile in NAME.altaz.
record() {
    name=$1
    shift
    timeout -k 10 150 $altaz record -o "$name.altaz" "$@" >"$name.out" 2>"$name.log" </dev/null
    echo $? >"$name.rc"
    echo "  $name ended with $(cat "$name.rc") at $(cut -d" " -f1 /proc/uptime)"
}
armed() { grep -q '^recording' "$1.log"; }
running() { redis-cli -p "$1" ping | grep -q PONG; }
# What of tracing could be changed.
snapshot() {
    for instance in $T $T/instances/*; do
        for file in set_ftrace_filter set_ftrace_notrace set_ftrace_pid set_ftrace_notrace_pid set_event set_event_pid \
            current_tracer tracing_on trace_clock trace_options tracing_cpumask buffer_size_kb kprobe_events \
            uprobe_events dynamic_events synthetic_events enabled_functions; do
            [ -e $instance/$file ] && echo "$instance/$file" && cat $instance/$file
        done
    done >"$1" 2>&1
}

small() {
    section small
    record small -p "$REDIS" --buffer 64 --duration 3s
}

hotplug() {
    section hotplug
    record hotplug -p "$REDIS" --duration 8s &
    wait_for armed hotplug
    sleep 2
    echo 0 >/sys/devices/system/cpu/cpu1/online
    echo $? >offline.rc
    sleep 2
    echo 1 >/sys/devices/system/cpu/cpu1/online
    wait $!
    redis-cli ping >ping 2>&1
}

# The other cases have work of their own; the load would only make all of them slower.
no_load() { kill $LOAD; }

readonly_tracefs() {
    section readonly
    mount -o remount,ro $T
    record readonly -p "$REDIS" --duration 3s
    mount -o remount,rw $T
}

# Somebody else traces: at the top and in an instance.
others() {
    section others
    echo vfs_read >$T/set_ftrace_filter
    echo function >$T/current_tracer
    mkdir $T/instances/mine
    echo schedule >$T/instances/mine/set_ftrace_filter
    echo function >$T/instances/mine/current_tracer
    snapshot before
    record others -p "$REDIS" --duration 3s
    snapshot after
    head -c 100 /proc/version >/dev/null
    # Else reading them would add to them without end.
    echo 0 >$T/tracing_on
    echo 0 >$T/instances/mine/tracing_on
    grep -c vfs_read $T/trace >top.events
    grep -c schedule $T/instances/mine/trace >mine.events
    echo nop >$T/instances/mine/current_tracer
    rmdir $T/instances/mine
    echo nop >$T/current_tracer
    echo >$T/set_ftrace_filter
    echo >$T/trace
    echo 1 >$T/tracing_on
}

full() {
    section full
    mkdir /mnt/small
    mount -t tmpfs -o size=8k tmpfs /mnt/small
    echo an earlier one >/mnt/small/x.altaz
    timeout 60 $altaz record -p "$REDIS" --duration 2s -o /mnt/small/x.altaz 2>full.log </dev/null
    echo $? >full.rc
    ls -A /mnt/small >left
    cat /mnt/small/x.altaz >earlier
    umount /mnt/small
}

# A control group that dies and is removed, and a process that ends, while they are recorded.
dying() {
    section dying
    mkdir $CG/dying
    (
        echo 0 >$CG/dying/cgroup.procs
        exec redis-server --save '' --port 6380 >/dev/null
    ) &
    redis-server --save '' --port 6381 >/dev/null &
    PID=$!
    wait_for running 6380
    wait_for running 6381
    for port in 6380 6381; do
        (while redis-cli -p $port set a b >/dev/null 2>&1; do sleep 0.05; done) &
    done
    record cgroup --cgroup $CG/dying --duration 60s &
    RECORD=$!
    record process -p $PID --duration 60s &
    OTHER=$!
    wait_for armed cgroup
    wait_for armed process
    # Functions are armed over half of the recording's time: what dies must have run into some.
    sleep 20
    echo 1 >$CG/dying/cgroup.kill
    kill -9 $PID
    sleep 0.3
    rmdir $CG/dying
    echo $? >rmdir.rc
    wait $RECORD $OTHER
}

module() {
    section module
    # What uses it has to go first.
    modprobe -r vhost_net tap tun 2>unload.log
    grep -c '^tun ' /proc/modules >before
    record module --duration 60s -- sh -c 'sleep 2; modprobe tun; sleep 1; i=0
        while [ $i -lt 100 ]; do (: <>/dev/net/tun) 2>/dev/null; i=$((i+1)); sleep 0.1; done'
    grep -c '^tun ' /proc/modules >after
}

# What is not there.
gone() {
    section gone
    sleep 0 &
    echo $! >pid
    wait $!
    record process -p "$(cat pid)" --duration 3s
    record cgroup --cgroup $CG/no-such-cgroup --duration 3s
    record container --container no-such-container --duration 3s
}

LOOP='while :; do cat /proc/self/status >/dev/null; uname >/dev/null; sleep 0.5; done'
bundle() {
    mkdir -p "/root/bundle/$1"
    (cd "/root/bundle/$1" && rm -f config.json && runc spec)
    perl -0pi -e 's/"args": \[.*?\]/"args": ["\/bin\/sh", "\/loop"]/s; s/"terminal": true/"terminal": false/;
        s/"path": "rootfs"/"path": "\/root\/fs"/' "/root/bundle/$1/config.json"
}

containers() {
    section containers
    mkdir -p /root/fs/bin /root/fs/proc /root/fs/dev /root/fs/sys /root/fs/tmp /root/fs/etc
    cp "$(command -v busybox)" /root/fs/bin/busybox
    echo "$LOOP" >/root/fs/loop
    for n in sh cat sleep uname id; do ln -sf busybox /root/fs/bin/$n; done
    for runtime in runc crun; do
        bundle $runtime
        $runtime run -d --bundle /root/bundle/$runtime in-$runtime </dev/null >$runtime.start 2>&1
        echo $? >>$runtime.start
    done
    podman --cgroup-manager cgroupfs run -d --name in-podman --network none --rootfs /root/fs /bin/sh /loop \
        </dev/null >podman.start 2>podman.err
    echo $? >>podman.start
    for runtime in runc crun podman; do
        record $runtime --container in-$runtime --duration 4s
    done
    for runtime in runc crun; do
        $runtime kill in-$runtime KILL
    done
    # One that dies while it is recorded, called by its id.
    record podman-dies --container "$(head -c 12 podman.start)" --duration 60s &
    RECORD=$!
    wait_for armed podman-dies
    sleep 2
    podman --cgroup-manager cgroupfs rm -f -t 0 in-podman >podman.rm 2>&1
    wait $RECORD
    for runtime in runc crun; do
        $runtime delete -f in-$runtime 2>/dev/null
    done
    bundle runsc
    mkdir -p $CG/runsc
    (
        echo 0 >$CG/runsc/cgroup.procs
        exec runsc --platform=systrap --network=none --ignore-cgroups run -detach -bundle /root/bundle/runsc in-runsc \
            </dev/null >runsc.start 2>&1
    )
    echo $? >>runsc.start
    record runsc --container in-runsc --duration 6s
    runsc kill in-runsc KILL 2>/dev/null
    sleep 0.5
    runsc delete -force in-runsc 2>/dev/null
}

vmm() {
    section vmm
    modprobe kvm_amd
    modprobe vhost_net 2>/dev/null
    qemu-system-x86_64 -M microvm,rtc=on,pit=off,pic=off -accel kvm -cpu host -smp 1 -m 512M -nodefaults \
        -no-user-config -display none -serial file:console -no-reboot -kernel /root/vmlinuz-* \
        -initrd /usr/lib/altaz/guest.img -append 'console=ttyS0 panic=-1' >qemu.log 2>&1 &
    QEMU=$!
    sleep 1
    record vmm -p $QEMU --duration 8s
    kill -9 $QEMU
}

# Source directories come from the kernel's image; without it functions are named in half the time.
mv /boot/vmlinuz-* /root/
mountpoint -q $T || mount -t tracefs tracefs $T
redis-server --save '' --appendonly no --port 6379 --daemonize yes >/dev/null
wait_for running 6379
# Some hundred requests a second: the lab is emulated, and altaz shall have its share of it.
(while :; do
    redis-benchmark -q -c 2 -n 200 -t set,get,lpush >/dev/null 2>&1
    sleep 0.3
done) >/dev/null 2>&1 &
LOAD=$!
REDIS=$(pidof redis-server)
for section in ${*:-small others hotplug full no_load readonly_tracefs dying module gone containers vmm}; do
    $section
done
kill $LOAD 2>/dev/null
section end
dmesg | grep -iE 'warn|bug:|oops:|call trace' >dmesg
tar -C /root -cf /root/out.tar out
