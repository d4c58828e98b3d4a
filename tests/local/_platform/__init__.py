"""Tests of the state of the embedded platform."""
