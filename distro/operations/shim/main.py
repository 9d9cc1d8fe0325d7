"""The program that runs one operation and outlives everybody else: `python -I -S shim.py <operation
folder>`, plan on stdin.

Only the way in; the life is in `shim_life.py`, which Python finds compiled (a script would be
compiled at each start).
"""

import os
import sys

# five floors up: the folder that holds `waagent`
sys.path.append(os.path.abspath(__file__).rsplit(os.sep, 5)[0])

from waagent.distro.operations.shim.life import live

if __name__ == "__main__":
    live(sys.argv[1])
