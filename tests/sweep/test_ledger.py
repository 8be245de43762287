"""What a kill leaves of a sweep's ledger, and what machines can be compared."""

import pytest
from sweep.swept_cases import MACHINE, trial

from optimize.errors import RequestError
from optimize.sweep.ledger import TRIALS, key_of, open_ledger


def test_what_was_noted_is_there_again(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.note(trial("a"), MACHINE)
    ledger.note(trial("b", outcome="failed", tuning=None, reason="no"))
    ledger.note(trial("b"), MACHINE)
    again = open_ledger(tmp_path)
    assert again.trials == ledger.trials == {"a": trial("a"), "b": trial("b")}
    assert again.environments == {"here": MACHINE}


@pytest.mark.parametrize("kept", [1, 0.5, -1])
def test_a_line_that_was_cut_off_is_left_out_and_written_again(tmp_path, kept):
    ledger = open_ledger(tmp_path)
    ledger.note(trial("a"), MACHINE)
    whole = (tmp_path / TRIALS).read_bytes()
    ledger.note(trial("b"), MACHINE)
    both = (tmp_path / TRIALS).read_bytes()
    line = both[len(whole) :]
    cut = line[: kept if isinstance(kept, int) else int(len(line) * kept)]
    (tmp_path / TRIALS).write_bytes(whole + cut)
    again = open_ledger(tmp_path)
    assert set(again.trials) == {"a"}
    again.note(trial("b"), MACHINE)
    assert (tmp_path / TRIALS).read_bytes() == both


def test_what_is_no_ledger_is_refused(tmp_path):
    (tmp_path / TRIALS).write_text("{}\n")
    with pytest.raises(RequestError, match=r"line 1 is of no sweep .*; begin in another folder"):
        open_ledger(tmp_path)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"memory_bytes": 2}, True),
        ({"device": {"device": "CPU"}}, True),
        ({"cpu": "another"}, False),
        ({"cores": 4}, False),
        ({"gpu": "GPU"}, False),
        ({"versions": {"torch": "3"}}, False),
    ],
)
def test_times_of_machines_are_compared_where_what_they_depend_on_is_the_same(change, same):
    assert (key_of(MACHINE.model_copy(update=change)) == key_of(MACHINE)) is same
