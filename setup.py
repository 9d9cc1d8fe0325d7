"""Build of the package (setup.cfg and pyproject.toml), and `setup.py install`, which puts the agent
into an environment of its own.
"""

import sys
from pathlib import Path

from setuptools import Command, setup

HERE = Path(__file__).resolve().parent


class install(Command):
    """`python3 setup.py install [--register-service]`: docs/install.md."""

    description = (
        "install the agent into <prefix>/lib/waagent, its launchers, its files in /etc, and with"
        " --register-service its service"
    )
    user_options = [
        ("register-service", None, "enable and start the service"),
        ("init-system=", None, "systemd, openrc, sysv, upstart or rc.d (default: what is found)"),
        ("lnx-distro=", None, "accepted for old callers; the init system is what matters"),
        ("force", "f", "replace configuration files that were changed"),
        ("root=", None, "stage the installation below this folder"),
        ("prefix=", None, "default /usr (FreeBSD: /usr/local)"),
        ("wheels=", None, "a folder with wheels of everything needed, for hosts without a network"),
    ]
    boolean_options = ["register-service", "force"]

    def initialize_options(self):
        self.register_service = self.init_system = self.lnx_distro = self.force = self.root = (
            self.prefix
        ) = self.wheels = None

    def finalize_options(self):
        if self.register_service and self.root:
            raise SystemExit(
                "setup.py: --register-service works on the running system only: without --root"
            )

    def run(self):
        # a build back end does not do this: import late, and only here
        sys.path.insert(0, str(HERE))
        from waagent.distro import installation

        root = Path(self.root or "/").resolve()
        options = installation.Options(
            checkout=HERE,
            root=root,
            prefix=self.prefix or ("/usr/local" if sys.platform.startswith("freebsd") else "/usr"),
            init_system=self.init_system or installation.find_init_system(root),
            python=sys.executable,
            wheels=Path(self.wheels).resolve() if self.wheels else None,
            force=bool(self.force),
            register_service=bool(self.register_service),
        )
        try:
            installation.carry_out(installation.plan_installation(options))
        except (installation.InstallationError, OSError) as error:
            raise SystemExit(f"setup.py: {error}") from error


# Building a wheel runs the command named "install" as well: ours exists only when a person asks for
# it by name.
setup(cmdclass={"install": install} if "install" in sys.argv[1:] else {})
