"""The program that runs one operation and outlives everybody else: `python -I -S shim.py <operation folder>`, plan on stdin.

Only the way in; the life is in `shim_life.py`, which Python finds compiled (a script would be compiled at each start).
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from waagent.distro.shim_life import live

if __name__ == "__main__":
    live(sys.argv[1])
