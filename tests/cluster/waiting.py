"""Waiting for what a test needs, instead of sleeping for luck."""

import time


def wait_for(what, condition, timeout):
    """Waits until `condition()` is true and returns its value; AssertionError, with `what`, at the timeout."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.05)
    return value
