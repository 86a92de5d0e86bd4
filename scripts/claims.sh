#!/usr/bin/env bash
# Puts the essay's claims to the test with measured profiles, and writes docs/claims.md. The profiles are those of
# the last `make demo`; ALTAZ_CLAIMS_DIR names another directory that `altaz compare` filled (with `--repeat N` for
# intervals over repeats).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
cargo run --locked --release --quiet -p altaz-assess --example claims -- \
    "${ALTAZ_CLAIMS_DIR:-target/demo}" docs/claims.md </dev/null
echo "wrote docs/claims.md" >&2
