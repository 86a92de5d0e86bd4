# Sourced by the scripts that run in the lab in sections: each leaves what it saw in /root/out/SECTION.
T=/sys/kernel/tracing
CG=/sys/fs/cgroup
OUT=/root/out
altaz=/root/altaz
mkdir -p $OUT

# section NAME: begins one, in its directory.
section() {
    S=$OUT/$1
    mkdir -p "$S"
    cd "$S" || exit 1
    echo "$1 at $(cut -d' ' -f1 /proc/uptime)" | tee -a $OUT/times
}
# wait_for COMMAND…: tries for a minute.
wait_for() {
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "never: $*" >>$OUT/trouble
}
