"""Runs the installer on the medium of System Center Virtual Machine Manager, where there is one."""
