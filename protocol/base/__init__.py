"""What every message and document needs: records, packing, errors, the log, secrets."""
