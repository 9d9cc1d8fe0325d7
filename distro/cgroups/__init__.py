"""cgroups, v1 and v2: plain calls (`groups`) and our trees of them (`trees`)."""
