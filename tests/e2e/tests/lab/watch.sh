#!/bin/sh
# Runs in the lab, as root, where the web service of demo/web.toml runs already: everything that
# tests/watch_lab.rs checks. A section leaves what it saw in /root/out/SECTION. Nothing is judged here.
#   watch.sh SOAK-SECONDS [SECTION…]
set -u
SOAK=$1
shift
. /root/sections.sh

armed() { grep -q '^recording' log; }
# client URL BODY RESULT RATE: asks until it is told to end; its id is in CLIENT.
client() {
    python3 /root/client.py "$@" &
    CLIENT=$!
}
finish() {
    kill "$1"
    wait "$1"
}

watch() {
    section watch
    python3 /root/server.py &
    SERVER=$!
    wait_for busybox wget -q -O - http://127.0.0.1:8111/
    client http://127.0.0.1:8111/ '' "$S/load" 10
    mkfifo pipe
    python3 /root/stamp.py <pipe >news &
    STAMP=$!
    $altaz watch -p $SERVER --quiet-time 5s --metrics 127.0.0.1:9188 >pipe 2>log </dev/null &
    WATCH=$!
    for _ in $(seq 600); do grep -q '"learned"' news && break; sleep 0.5; done
    cut -d' ' -f1 /proc/uptime >learned.at
    I=0
    while [ $I -lt "$SOAK" ]; do
        sleep 5
        I=$((I + 5))
        echo "$(awk '/VmRSS/ { print $2 }' /proc/$WATCH/status) $(awk '{ print $14 + $15 }' /proc/$WATCH/stat)" >>samples
    done
    busybox wget -q -O - http://127.0.0.1:9188/metrics >metrics
    # At all moments of a window.
    PAUSE=1.9
    for call in $(sed -n 's/^    "\([a-z_]*\)": .*/\1/p' /root/server.py); do
        sleep $PAUSE
        PAUSE=$(awk "BEGIN { print $PAUSE - 0.07 }")
        date "+$call %s.%N" >>asked
        busybox wget -q -O - http://127.0.0.1:8111/$call >/dev/null
    done
    sleep 3
    busybox wget -q -O - http://127.0.0.1:9188/metrics >metrics.after
    echo $SERVER >pid
    finish $CLIENT
    kill -INT $WATCH
    wait $WATCH
    echo $? >rc
    wait $STAMP
    rm pipe
    kill $SERVER
}

python() {
    section python
    python3 /root/check.py 1 >plain
    python3 /root/check.py 100000 >checks 2>errors &
    PYTHON=$!
    wait_for test -s checks
    $altaz record --userland -o python.altaz -p $PYTHON --duration 15s >out 2>log </dev/null &
    RECORD=$!
    wait_for armed
    wc -l <checks >before
    wait $RECORD
    echo $? >rc
    wc -l <checks >after
    kill $PYTHON
}

patient() { etcdctl --dial-timeout 60s --command-timeout 60s "$@"; }
# A Go server whose values are read back, while collections and growing stacks happen all the time.
etcd_server() {
    section etcd
    GOGC=5 etcd --data-dir /root/etcd-data >etcd.log 2>&1 &
    ETCD=$!
    wait_for etcdctl endpoint health
    $altaz record --userland -o etcd.altaz -p $ETCD --duration 12s >out 2>log </dev/null &
    RECORD=$!
    wait_for armed
    GOOD=0 BAD=0
    while kill -0 $RECORD 2>/dev/null; do
        V="value $GOOD $(head -c 3000 /dev/urandom | od -An -tx1 | tr -d ' \n')"
        # While everything is still probed in an emulated machine, an answer may take long.
        patient put "key$((GOOD % 7))" "$V" >/dev/null 2>>client.log
        GOT=$(patient get --print-value-only "key$((GOOD % 7))" 2>>client.log)
        if [ "$GOT" = "$V" ]; then
            GOOD=$((GOOD + 1))
        else
            BAD=$((BAD + 1))
            echo "$V, but $GOT" >>wrong
        fi
    done
    wait $RECORD
    echo $? >rc
    echo "$GOOD $BAD" >load
    etcdctl endpoint health >health 2>&1
    kill $ETCD
}

# A sandbox that checks what it computes.
gvisor() {
    section gvisor
    mkdir -p /root/fs/bin /root/fs/proc /root/fs/dev /root/fs/tmp /root/bundle $CG/runsc
    cp "$(command -v busybox)" /root/fs/bin/busybox
    for n in sh cat md5sum seq sort head; do ln -sf busybox /root/fs/bin/$n; done
    SUM=$(busybox seq 1 3000 | busybox md5sum)
    (cd /root/bundle && rm -f config.json && runc spec)
    cat >/root/fs/check <<SH
while :; do
    S=\$(seq 1 3000 | sort -n | md5sum)
    if [ "\$S" = "$SUM" ]; then echo good; else echo "bad \$S"; fi
done
SH
    perl -0pi -e 's/"args": \[.*?\]/"args": ["\/bin\/sh", "\/check"]/s; s/"terminal": true/"terminal": false/;
        s/"path": "rootfs"/"path": "\/root\/fs"/' /root/bundle/config.json
    (
        echo 0 >$CG/runsc/cgroup.procs
        exec runsc --platform=systrap --network=none --ignore-cgroups run -detach -bundle /root/bundle checked \
            </dev/null >checks 2>runsc.log
    )
    wait_for grep -q good checks
    # altaz does not probe a sandbox that has just booted.
    sleep 20
    wc -l <checks >before
    $altaz record --userland -o gvisor.altaz --container checked --duration 20s >out 2>log </dev/null
    echo $? >rc
    sleep 2
    wc -l <checks >after
    grep -vc '^good$' checks >bad
    tail -3 checks >end
    runsc kill checked KILL
    sleep 1
    runsc delete -force checked 2>/dev/null
}

# nginx, gunicorn and PostgreSQL, while nginx reloads and PostgreSQL starts and ends processes.
web() {
    section web
    client http://10.77.0.10:8080/visit '{"page": "/start"}' "$S/load" 10
    $altaz record --userland -o web.altaz --cgroup $CG/altaz-process --duration 45s >out 2>log </dev/null &
    RECORD=$!
    wait_for armed
    NGINX=$(pgrep -o -x nginx)
    while kill -0 $RECORD 2>/dev/null; do
        sleep 4
        kill -HUP "$NGINX"
        echo $? >>reloads
    done
    wait $RECORD
    echo $? >rc
    finish $CLIENT
    pgrep -ax 'nginx|postgres|gunicorn' >processes.after
}

# Source directories come from the kernel's image; without it functions are named in half the time.
rm -f /boot/vmlinuz-*
mountpoint -q $T || mount -t tracefs tracefs $T
for section in ${*:-watch python etcd_server gvisor web}; do
    $section
done
section end
dmesg | grep -iE 'warn|bug:|oops:|call trace|segfault|traps:' >dmesg
ls $T/instances >instances
tar -C /root -cf /root/out.tar out
