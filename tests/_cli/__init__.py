"""The command line does what it says, and its exit statuses are true."""
