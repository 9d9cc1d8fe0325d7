"""The first lines of every process of our own Python (our_python.py); run by its path, with
`-I -S`: PLACES GROUPS TITLE MODULE ARGUMENT...

PLACES are where it imports from besides the standard library, GROUPS the cgroup.procs files of
where it is to live; colons between them.
"""

import sys


def _join(groups: str) -> None:
    for file in filter(None, groups.split(":")):
        try:
            with open(file, "w", encoding="ascii") as procs:
                procs.write("0")
        except OSError:
            pass  # behind a fence, or gone: it shares the limits of whoever started it


if __name__ == "__main__":
    places, groups, title, module = sys.argv[1:5]
    _join(groups)
    sys.path += places.split(":")
    del sys.argv[:4]
    if title:
        from waagent.distro.process_title import set_title

        set_title(title)
    sys.exit(__import__(module, fromlist=("main",)).main())
