#!/usr/bin/env bash
# Takes what `make demo` wrote into the docs: its table as docs/demo.txt, the summary of it into the
# README, and pictures of its page into docs/pictures.
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

page=target/demo/report.html
if ! command -v "${ALTAZ_CHROMIUM:-chromium}" >/dev/null; then
    echo "docs: no chromium, so docs/pictures stay as they are; scripts/setup.sh installs it" >&2
    exit 1
fi
cargo run --locked --quiet -p altaz-e2e --bin pictures -- "$page" docs/pictures
