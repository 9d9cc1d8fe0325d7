"""The enable operation of the sample handler: read the settings, decrypt the protected part, greet,
report.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def newest_settings(folder: Path) -> tuple[int, dict[str, Any]]:
    """The settings with the highest sequence number, and that number."""
    found = sorted(folder.glob("*.settings"), key=lambda path: int(path.stem))
    document = json.loads(found[-1].read_text(encoding="utf-8") or "{}")
    return int(found[-1].stem), document.get("runtimeSettings", [{}])[0].get("handlerSettings", {})


def unprotected(settings: dict[str, Any], library: Path) -> dict[str, Any]:
    """The protected settings in clear; empty when there are none."""
    text = settings.get("protectedSettings")
    if not text:
        return {}
    stem = library / settings["protectedSettingsCertThumbprint"]
    argv = [
        "openssl",
        "cms",
        "-decrypt",
        "-inform",
        "DER",
        "-recip",
        f"{stem}.crt",
        "-inkey",
        f"{stem}.prv",
    ]
    done = subprocess.run(argv, input=base64.b64decode(text), stdout=subprocess.PIPE, check=True)
    clear: dict[str, Any] = json.loads(done.stdout)
    return clear


def main() -> int:
    """Greet and write the status file."""
    environment = json.loads(Path("HandlerEnvironment.json").read_text(encoding="utf-8"))[0][
        "handlerEnvironment"
    ]
    sequence, settings = newest_settings(Path(environment["configFolder"]))
    greeting = (settings.get("publicSettings") or {}).get("greeting", "Hello")
    secret = unprotected(settings, Path("..").resolve()).get("to", "world")
    message = f"{greeting}, {secret}!"
    print(message)
    status = {
        "operation": "Enable",
        "status": "success",
        "code": 0,
        "formattedMessage": {"lang": "en-US", "message": message},
    }
    report = [
        {
            "version": 1.0,
            "timestampUTC": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "status": status,
        }
    ]
    target = Path(environment["statusFolder"]) / f"{sequence}.status"
    half = target.with_suffix(".new")
    half.write_text(json.dumps(report), encoding="utf-8")
    os.replace(half, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
