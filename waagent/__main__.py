"""`python -m waagent` is the command `waagent`."""

from __future__ import annotations

import sys

from waagent.supervisor.commands.main import main

sys.exit(main())
