#!/usr/bin/env bash
# Takes the table that `make demo` wrote into the docs: the whole of it as docs/demo.txt, its summary
# into the README.
set -euo pipefail
cd "$(dirname "$0")/.."
table=target/demo/compare.txt
if [ ! -s "$table" ]; then
    echo "docs: there is no $table; run make demo first" >&2
    exit 1
fi
cp "$table" docs/demo.txt
summary=$(awk '
    NR == 1 || NR == 2 || NR == 3 { print; next }
    / side by side|^side by side|^ +covered$/ { on = 1; if (!blank++) print "" }
    on && /^$/ { exit }
    on { print }' docs/demo.txt)
awk -v summary="$summary" '
    /^<!-- demo:/ { print; print "```"; print summary; print "```"; skip = 1; next }
    /^<!-- \/demo -->/ { skip = 0 }
    !skip { print }' README.md >README.md.new
mv README.md.new README.md
