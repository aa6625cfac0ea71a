#!/usr/bin/env bash
# The list of everything that is linked into the program, in the CycloneDX format, as the image carries it: written to
# backend/results/sbom.json and compared with what cargo itself says is linked. Run by `make sbom`.
set -euo pipefail
cd "$(dirname "$0")/../backend"
target=x86_64-unknown-linux-gnu
command -v cargo-cyclonedx >/dev/null || cargo install --quiet --locked cargo-cyclonedx --version 0.5.9
cargo cyclonedx --quiet --manifest-path crates/tbg/Cargo.toml --format json --spec-version 1.5 --target $target \
    --override-filename sbom
mkdir -p results
mv crates/tbg/sbom.json results/sbom.json
# Other members of the workspace get one as well.
find crates tests -maxdepth 2 -name sbom.json -delete
linked=$(cargo tree --locked -p tbg -e normal,build --target $target --prefix none --format '{p}' | awk '{ print $1, substr($2, 2) }' | sort -u)
python3 - "$linked" <<'PYTHON'
import json, sys

listed = {(part["name"], part["version"]) for part in json.load(open("results/sbom.json"))["components"]}
# The program itself is the subject of the list.
linked = {tuple(line.split()) for line in sys.argv[1].splitlines() if not line.startswith("tbg ")}
missing = sorted(" ".join(part) for part in linked - listed)
print(f"{'FAIL' if missing else 'PASS'}: {len(listed)} components are listed, of {len(linked)} that are linked or build "
      f"something that is {len(missing)} are missing" + "".join(f"\n  {part}" for part in missing))
sys.exit(bool(missing))
PYTHON
