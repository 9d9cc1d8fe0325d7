"""Prints what the agent imports that is not of the standard library (setup.cfg), one word each."""

from __future__ import annotations

import configparser
from pathlib import Path

if __name__ == "__main__":
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).resolve().parents[1] / "setup.cfg", encoding="utf-8")
    print(*parser["options"]["install_requires"].split())
