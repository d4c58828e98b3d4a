"""Tests of the embedded platform with the other clients of the API, unmodified."""
