"""Tests of kaleden with Parsl and Dask, which ``nox -s engines`` installs and runs."""
