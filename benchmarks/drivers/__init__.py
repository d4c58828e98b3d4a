"""The drivers: one program for each contender, which runs in the contender's environment.

Therefore these modules import only the standard library, anyio, each other, and the client that
they measure.
"""
