"""The machine underneath, standard library only, and what differs between distributions."""
