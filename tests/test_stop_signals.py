"""A signal stops a run at once where nothing is lost, and later elsewhere."""

import signal
import sys
import time

import pytest

from rmgl_jax.training.stop_signals import Interrupted, stop_signals


class SignalInDestructor:
    """Python prints exceptions of destructors, and goes on."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def test_at_once_stops_although_a_destructor_swallows_the_signal(capsys):
    def evaluate():
        with stop_signals() as stop, stop.at_once(3):
            target = SignalInDestructor()
            del target
            for _ in range(1000):
                time.sleep(0.01)
            pytest.fail("went on")

    before = sys.unraisablehook
    with pytest.raises(Interrupted):
        evaluate()
    assert sys.unraisablehook == before
    assert capsys.readouterr().err == ""


def test_at_once_stops_at_its_end_at_the_latest():
    reached = []

    def evaluate():
        with stop_signals() as stop, stop.at_once(3):
            try:
                signal.raise_signal(signal.SIGTERM)
            except Interrupted:
                reached.append("the end of the block")

    with pytest.raises(Interrupted):
        evaluate()
    assert reached


def test_signal_before_at_once_stops_at_its_start():
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_due(1)
        with pytest.raises(Interrupted), stop.at_once(1):
            pytest.fail("went on")
