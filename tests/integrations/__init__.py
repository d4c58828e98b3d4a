"""kaleden under the engines of others; run by ``nox -s engines``, which installs them."""
