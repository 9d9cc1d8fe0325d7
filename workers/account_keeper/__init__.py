"""Accounts for a time (just-in-time access): made, and removed when their time is over."""
