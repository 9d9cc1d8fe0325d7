"""`/etc/waagent.conf` as a typed model: `options` (the table), `lines` (the file's syntax),
`values` (types and rules), `loading`.
"""
