"""The worker that talks to the platform, without any privilege."""
