#!/usr/bin/env bash
# An independent scanner reads what altaz writes: cve-bin-tool (PyPI) looks up the kernel's package of a
# profile in a database made of the same records, once as it is and once with altaz' OpenVEX and
# --filter-triage, and what that changes is counted and checked against the document. Nothing but PyPI
# is asked for over the network; everything lies in target/scanner.
#
#   scripts/scanner.sh [PROFILE [FEED...]]
#
# INVENTORY=FILE names an inventory (`altaz inventory`) when none lies beside the profile.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-target/demo/runc.altaz}
shift || true
feeds=("$@")
[ ${#feeds[@]} -gt 0 ] || feeds=(tests/fixtures/feeds/kernel-cna tests/fixtures/feeds/functions.jsonl)
altaz=${ALTAZ:-target/release/altaz}
[ -x "$altaz" ] || { echo "scanner: $altaz is not there; run make build" >&2; exit 1; }
[ -f "$profile" ] || { echo "scanner: $profile is not there; run make demo, or name a profile" >&2; exit 1; }

work=$PWD/target/scanner
rm -rf "$work/run" && mkdir -p "$work/run/home"
if [ ! -x "$work/venv/bin/cve-bin-tool" ]; then
    echo 'scanner: installing cve-bin-tool 3.4 from PyPI into target/scanner/venv'
    python3 -m venv "$work/venv"
    # setuptools: it imports a module that newer ones have dropped.
    "$work/venv/bin/pip" install --quiet 'cve-bin-tool==3.4' 'setuptools<81'
fi

echo "scanner: triage of $profile"
"$altaz" feeds --feeds "$work/run/store" import "${feeds[@]}" 2>/dev/null || [ $? = 4 ]
"$altaz" triage "$profile" --feeds "$work/run/store" ${INVENTORY:+--inventory "$INVENTORY"} \
    -o "openvex=$work/run/vex.json" -o "json=$work/run/triage.json"

# The scanner keeps its database below HOME.
export HOME=$work/run/home LC_ALL=C.UTF-8
"$work/venv/bin/python" scripts/scanner.py database "$work/run" "${feeds[@]}"
scan() {
    local report=$1
    shift
    # It ends with the number of products that have vulnerabilities.
    "$work/venv/bin/cve-bin-tool" --offline --disable-version-check --sbom cyclonedx \
        --sbom-file "$work/run/sbom.json" -f json -o "$work/run/$report" "$@" \
        >"$work/run/$report.log" 2>&1 || [ $? -lt 3 ] || { tail -20 "$work/run/$report.log" >&2; exit 1; }
}
scan before.json
scan triaged.json --vex-file "$work/run/vex.json"
scan filtered.json --vex-file "$work/run/vex.json" --filter-triage
"$work/venv/bin/python" scripts/scanner.py check "$work/run"
