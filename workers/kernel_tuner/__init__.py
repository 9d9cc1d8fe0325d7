"""Gives the kernel what the host offers: entropy; and tells old ones to leave virtual NUMA
alone.
"""
