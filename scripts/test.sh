#!/usr/bin/env bash
# Format and lints, then the three tiers of tests, each printing how many tests it ran and failing
# on none:
#   unprivileged  needs nothing
#   root          ignored otherwise: #[ignore = "needs root …"]
#   lab           ignored otherwise: #[ignore = "needs the lab …"]; boots virtual machines
# The last line is the sum: "N passed, N failed". VERBOSE=1 shows the output of passing tests.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"
. scripts/tiers.sh
export ALTAZ_BIN=${ALTAZ_BIN:-$PWD/target/release/altaz}
export INSTA_UPDATE=no CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# tier NAME LIBTEST-ARGUMENTS…: runs its tests one crate after the other and adds up the results.
tier() {
    local name=$1 begin=$SECONDS status p f
    shift
    echo "== tier $name"
    cargo test --locked --workspace --no-fail-fast --quiet -- "$@" </dev/null >"$log" 2>&1
    status=$?
    if [ $status != 0 ] || [ -n "${VERBOSE:-}" ]; then cat "$log"; fi
    p=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
    f=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
    # It did not build, or a test took its whole program down.
    if [ $status != 0 ] && [ "$f" = 0 ]; then f=1; fi
    if [ $((p + f)) = 0 ]; then
        echo "== tier $name ran no test at all, which counts as a failure"
        f=1
    fi
    echo "== tier $name: $p passed, $f failed, $((SECONDS - begin)) s"
    passed=$((passed + p)) failed=$((failed + f))
}

# tier_of NAME LIBTEST-ARGUMENTS…: the same with the ignored tests of that tier.
tier_of() {
    local tests
    mapfile -t tests < <(names "$1")
    if [ ${#tests[@]} = 0 ]; then
        echo "== tier $1 has no test at all, which counts as a failure"
        failed=$((failed + 1))
        return
    fi
    tier "$@" --ignored "${tests[@]}"
}

echo '== lint'
if scripts/lint.sh; then passed=$((passed + 1)); else failed=$((failed + 1)); fi

mapfile -t homeless < <(names none)
if [ ${#homeless[@]} -gt 0 ]; then
    echo "ignored tests that state no need that a tier meets: ${homeless[*]}"
    failed=$((failed + 1))
fi

tier unprivileged
if [ "$(id -u)" = 0 ]; then
    # systemd mounts it at boot; a machine without has nobody who does.
    mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
    tier_of root
else
    echo '== tier root was not run: this is not root, which counts as a failure'
    failed=$((failed + 1))
fi
tier_of lab --test-threads=1

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
