"""The commands of ``kaleden``: one module for each, imported when it is called."""
