#!/usr/bin/env bash
# Takes what `make demo` wrote into the docs: its table as docs/demo.txt, the summary of it into the
# README, and pictures of the page into docs/pictures: of the quick matrix alone, as the page of all
# deployments is wider than what can be read in a document.
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

if ! command -v "${ALTAZ_CHROMIUM:-chromium}" >/dev/null; then
    echo "docs: no chromium, so docs/pictures stay as they are; scripts/setup.sh installs it" >&2
    exit 1
fi
profiles=()
for deployment in ${QUICK//,/ }; do profiles+=("target/demo/$deployment.altaz"); done
page=target/demo/quick.html
target/release/altaz report "${profiles[@]}" -o "html=$page" </dev/null
cargo run --locked --quiet -p altaz-e2e --bin pictures -- "$page" docs/pictures
