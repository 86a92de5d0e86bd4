# Containers with known filters in the lab; in each a program calls every system call and says what happened,
# while altaz reads the filter from outside. Lines: `case NAME`, then `call …` of the program, then what altaz wrote
# into /out/NAME.altaz.
set -u
mkdir -p /out /root/fs/proc /root/fs/dev /root/fs/sys /root/fs/tmp /root/fs/etc /root/fs/run
cp /call-each /root/fs/call-each
chmod 755 /root/fs/call-each
for case in default unconfined system-service conditions; do
    case $case in
        default) security= ;;
        unconfined) security="--security-opt seccomp=unconfined" ;;
        *) security="--security-opt seccomp=/$case.json" ;;
    esac
    echo "case $case"
    # shellcheck disable=SC2086
    podman --cgroup-manager=cgroupfs run --rm --name "$case" --network none $security \
        --rootfs /root/fs /call-each >"/out/$case.txt" 2>"/out/$case.err" &
    podman=$!
    i=0
    until grep -q '^end$' "/out/$case.txt" 2>/dev/null; do
        i=$((i + 1))
        if [ "$i" -gt 240 ] || ! kill -0 "$podman" 2>/dev/null; then
            echo "failed $case: $(tail -5 "/out/$case.err" | tr '\n' ' ')"
            break
        fi
        sleep 0.5
    done
    sed 's/^/call /' "/out/$case.txt"
    pid=$(pgrep -x call-each | head -1)
    altaz record --pid "$pid" --duration 2s --partial -o "/out/$case.altaz" >"/out/$case.log" 2>&1 ||
        echo "record $? $(tail -3 "/out/$case.log" | tr '\n' ' ')"
    kill -9 "$pid" 2>/dev/null
    wait "$podman"
done
