"""Asks the advisory database for known vulnerabilities of the packages in requirements.lock.

Exit code 1 if there are some; 0 if there are none.  It is also 0 if the database did not answer, which the last line says.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TIMEOUT_SECONDS = 120
_PIP_AUDIT = ("-m", "pip_audit", "--format=json", "--progress-spinner=off", "--disable-pip", "--require-hashes")


def verdict(report: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether the audit passes, and its message, from pip-audit's report in JSON."""
    packages = report["dependencies"]
    vulnerable = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no version yet'}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    asked = sum("skip_reason" not in package for package in packages)
    if asked < len(packages):
        vulnerable.append(f"NOT AUDITED: the advisory database had no answer about {len(packages) - asked} of {len(packages)} packages")
        return len(vulnerable) == 1, vulnerable
    return not vulnerable, vulnerable or [f"No known vulnerability in any of {asked} packages"]


def main(lock: str = "requirements.lock") -> int:
    """Audits one lock file with the pip-audit of the Python that runs this."""
    try:
        finished = subprocess.run(  # noqa: S603 - a fixed command
            [sys.executable, *_PIP_AUDIT, f"--requirement={lock}"], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        report = json.loads(finished.stdout)
    except subprocess.TimeoutExpired:
        sys.stdout.write(f"NOT AUDITED: no answer about {lock} within {TIMEOUT_SECONDS} s\n")
        return 0
    except json.JSONDecodeError:
        reason = (finished.stderr.strip() or "no reason given").splitlines()[-1]
        sys.stdout.write(f"NOT AUDITED: pip-audit could not ask about {lock}: {reason}\n")
        return 0
    good, lines = verdict(report)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
