"""What scripts/scanner.sh needs besides the scanner itself.

`database DIR FEED...` writes the scanner's database from kernel CNA records and a CycloneDX list of one
package: the kernel's of DIR/triage.json. Each record becomes one range, from the release with the defect
to the mainline release with the fix, as scanners have it that know nothing of stable branches.
`check DIR` compares the scanner's three reports with the document it was given, and fails on a difference.
"""

import json
import sqlite3
import sys
from collections import Counter
from pathlib import Path


def kernel(run):
    triage = json.loads((run / "triage.json").read_text())
    kernels = {p["purl"]: p for one in triage["profiles"] for p in one["products"] if "kernel" in (p.get("cpe") or "")}
    if len(kernels) != 1:
        sys.exit(f"scanner: the profile has {len(kernels)} kernel packages; name one of a single kernel")
    return next(iter(kernels.values()))


def mainline_range(record):
    """First release with the defect and mainline release with the fix, where a record says both."""
    for affected in record["containers"]["cna"].get("affected", []):
        versions = affected.get("versions", [])
        start = [v["version"] for v in versions if v["status"] == "affected" and "lessThan" not in v]
        fix = [v["version"] for v in versions if v["status"] == "unaffected" and v.get("lessThanOrEqual") == "*"]
        if start and fix:
            return start[0], fix[0]
    return None


def database(run, feeds):
    from cve_bin_tool.cvedb import CVEDB, DBNAME

    product = kernel(run)
    cache = Path.home() / ".cache" / "cve-bin-tool"
    cache.mkdir(parents=True)
    db = sqlite3.connect(cache / DBNAME)
    for schema in CVEDB.TABLE_SCHEMAS.values():
        db.execute(schema)
    count = 0
    for path in sorted(p for feed in feeds for p in Path(feed).rglob("CVE-*.json")):
        record = json.loads(path.read_text())
        between = mainline_range(record)
        if between is None:
            continue
        cve = record["cveMetadata"]["cveId"]
        title = record["containers"]["cna"].get("title", cve)
        # Of most records no score is published; the scanner leaves out what has none.
        db.execute("INSERT INTO cve_severity VALUES (?,?,?,?,?,?,?,?)", (cve, "MEDIUM", title, 5, 3, "", "NVD", ""))
        db.execute("INSERT INTO cve_range VALUES (?,?,?,?,?,?,?,?,?)",
                   (cve, "debian", product["name"].lower(), "*", between[0], "", "", between[1], "NVD"))
        count += 1
    db.commit()
    db.close()
    sbom = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "serialNumber": "urn:uuid:00000000-0000-4000-8000-000000000000",
        "components": [{"type": "operating-system", "bom-ref": "kernel", "name": product["name"],
                        "version": product["version"], "purl": product["purl"]}],
    }
    (run / "sbom.json").write_text(json.dumps(sbom, indent=2))
    print(f"scanner: {count} records in its database, one package to look for: {product['purl']}")


def check(run):
    report = {name: {r["cve_number"]: r["remarks"] for r in json.loads((run / f"{name}.json").read_text())}
              for name in ("before", "triaged", "filtered")}
    statements = json.loads((run / "vex.json").read_text())["statements"]
    purl = kernel(run)["purl"]
    vex = {s["vulnerability"]["name"]: s["status"] for s in statements if s["products"][0]["@id"] == purl}
    remark = {"affected": "Confirmed", "under_investigation": "NewFound", "fixed": "Mitigated", "not_affected": "NotAffected"}
    found = set(report["before"])
    if not found:
        sys.exit("scanner: it found nothing, so that nothing could be filtered")
    print(f"scanner: {len(found)} found without VEX; with VEX, by its own remark:")
    wrong = [f"{c}: `{r}` of `{vex.get(c)}`" for c, r in report["triaged"].items() if r != remark[vex.get(c, "under_investigation")]]
    for name, n in sorted(Counter(report["triaged"].values()).items()):
        print(f"  {name:12} {n}")
    gone = found - set(report["filtered"])
    said = {c for c in found if vex.get(c) == "not_affected"}
    wrong += [f"{c}: filtered, and not not_affected" for c in gone - said] + [f"{c}: not filtered" for c in said - gone]
    left = Counter(report["filtered"].values())
    print(f"scanner: {len(gone)} are gone with --filter-triage, {len(report['filtered'])} are left:",
          ", ".join(f"{n} {name}" for name, n in sorted(left.items())))
    if not said:
        wrong.append("no found vulnerability is not_affected: the filter was not tried")
    if wrong:
        sys.exit("scanner: the document was not read as it says:\n  " + "\n  ".join(sorted(wrong)[:20]))
    print("scanner: every vulnerability it found has the state of the document, and exactly the not_affected are gone")


if __name__ == "__main__":
    command, run, *rest = sys.argv[1:]
    {"database": lambda: database(Path(run), rest), "check": lambda: check(Path(run))}[command]()
