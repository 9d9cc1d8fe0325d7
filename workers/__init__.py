"""One room per worker; `runtime` is their common floor. No worker imports another."""
