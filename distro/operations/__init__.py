"""Operations: process trees that outlive workers and the supervisor, and the records that they
leave.
"""
