#!/usr/bin/env bash
# The three tiers of tests, each printing how many tests it ran and failing on none:
#   unprivileged  needs nothing
#   root          ignored otherwise; the test's name begins with root_
#   lab           ignored otherwise; the test's name begins with lab_; boots virtual machines
# The last line is the sum: "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"
export ALTAZ_BIN=${ALTAZ_BIN:-$PWD/target/release/altaz}
export INSTA_UPDATE=no CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
begin=$SECONDS

# count TIER: adds up the results of `cargo test` in $log.
count() {
    local p f
    p=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
    f=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
    if [ "$2" != 0 ] && [ "$f" = 0 ]; then
        f=1 # it did not build, or a test took the whole program down
    fi
    if [ $((p + f)) = 0 ]; then
        echo "== tier $1 ran no test at all: that counts as a failure"
        f=1
    fi
    echo "== tier $1: $p passed, $f failed ($((SECONDS - begin)) s since the start)"
    passed=$((passed + p)) failed=$((failed + f))
}

# tier NAME LIBTEST-ARGUMENTS…
tier() {
    local name=$1 status
    shift
    echo "== tier $name"
    cargo test --locked --workspace --no-fail-fast --quiet -- "$@" </dev/null >"$log" 2>&1
    status=$?
    if [ $status != 0 ] || [ -n "${VERBOSE:-}" ]; then
        cat "$log"
    fi
    count "$name" $status
}

if scripts/lint.sh; then passed=$((passed + 1)); else failed=$((failed + 1)); fi

# An ignored test that belongs to no tier would never run.
homeless=$(cargo test --locked --workspace --quiet -- --ignored --list </dev/null 2>/dev/null |
    sed -n 's/: test$//p' | grep -Ev '(^|::)(root|lab)_')
if [ -n "$homeless" ]; then
    echo "ignored tests whose names begin with neither root_ nor lab_:" $homeless
    failed=$((failed + 1))
fi

tier unprivileged
if [ "$(id -u)" = 0 ]; then
    tier root --ignored root_ --skip lab_
    tier lab --ignored lab_ --test-threads=1
else
    # The lab needs no root where user namespaces are allowed.
    tier lab --ignored lab_ --test-threads=1
    echo '== tier root: not run, this is not root; that counts as a failure'
    failed=$((failed + 1))
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
