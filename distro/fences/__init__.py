"""What a process gives up before its own code runs. Each function acts on the calling process."""
