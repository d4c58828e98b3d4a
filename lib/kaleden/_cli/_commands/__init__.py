"""The commands of ``kaleden``: one module for each, loaded when it is called."""
