"""The one Debian below every machine of the lab: made from packages, once, in `.cache/root`."""
