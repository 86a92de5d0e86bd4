# Sourced by the other scripts. Which tier an ignored test belongs to follows from the reason that
# its #[ignore = "…"] states:
#   needs root …      root
#   needs the lab …   lab
#   … make fuzz       fuzz
# Prints "TIER NAME" for each; "none NAME" for a test that would never run.
ignored_tests() {
    find crates tests -name '*.rs' -not -path '*/target/*' -print0 | sort -z | xargs -0 awk '
        /^ *#\[ignore/ {
            reason = $0
            tier = "none"
            if (reason ~ /"needs root/) tier = "root"
            else if (reason ~ /"needs the lab/) tier = "lab"
            else if (reason ~ /make fuzz/) tier = "fuzz"
            waiting = 1
        }
        waiting && match($0, /fn [a-zA-Z0-9_]+/) {
            print tier, substr($0, RSTART + 3, RLENGTH - 3)
            waiting = 0
        }'
}

# names TIER: the names of its tests.
names() { ignored_tests | awk -v tier="$1" '$1 == tier { print $2 }'; }
