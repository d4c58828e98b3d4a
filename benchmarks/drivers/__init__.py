"""The contenders, each driven by a program that runs in an environment of its own.

So these modules import nothing but the standard library, anyio, each other, and the one client that
they are about.
"""
