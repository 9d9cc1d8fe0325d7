"""The one-shot that makes a fresh image this customer's VM: user, SSH, host name, custom data,
Ready.
"""
