from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.agents.outlook import Outlook
from autoresearch.agents.policy import Act, Action, Caps, Look, Memory, Pace, Policy, Sight, Spent
from autoresearch.errors import UsageError

MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC)
READY = Sight(state="ready", print_of_screen="prompt")
BUSY = Sight(state="busy", print_of_screen="working")
GONE = Sight(state="exited", detail="Pane is dead")
QUIET = Outlook(exists=True)
TRIAL = Outlook(exists=True, trial_runs=True)


class Night:
    """A simulated night: what is seen is given, time passes by itself."""

    def __init__(self, caps: Caps | None = None, pace: Pace | None = None, memory: Memory | None = None) -> None:
        self.policy = Policy(caps=caps or Caps(), pace=pace or Pace(), jitter=0.5)
        self.memory = memory or Memory(task_given=True, has_worked=True, rows=0)
        self.now = 1000.0
        self.wall_shift = timedelta()

    @property
    def wall(self) -> datetime:
        return MIDNIGHT + timedelta(seconds=self.now) + self.wall_shift

    def look(self, sight: Sight, outlook: Outlook = QUIET, spent: Spent | None = None) -> Action:
        self.now += 1.0
        self.memory.elapsed_s += 1.0
        look = Look(sight=sight, outlook=outlook, now=self.now, wall=self.wall)
        return self.policy.decide(self.memory, look, spent or Spent())

    def until(self, act: Act, sight: Sight, outlook: Outlook = QUIET, limit_s: int = 100_000) -> tuple[Action, float]:
        """The first action of this kind while the same thing is seen, and the seconds it took; others but WAIT fail."""
        began = self.now
        for _ in range(limit_s):
            action = self.look(sight, outlook)
            if action.act is act:
                return action, self.now - began
            assert action.act is Act.WAIT, action
        raise AssertionError(f"no {act} within {limit_s} s")

    def acts(self, sight: Sight, seconds: int, outlook: Outlook = QUIET) -> list[Act]:
        """All that was done but waiting."""
        actions = [self.look(sight, outlook) for _ in range(seconds)]
        return [action.act for action in actions if action.act is not Act.WAIT]


def test_never_types_while_the_client_is_busy_or_a_trial_runs():
    night = Night()
    assert night.acts(BUSY, 2000) == []
    assert night.acts(READY, 20_000, TRIAL) == []


def test_nudges_an_idle_agent_and_spaces_nudges_out():
    night = Night()
    gaps = [night.until(Act.NUDGE, READY)[1] for _ in range(6)]
    assert gaps[0] == pytest.approx(20, abs=3)
    assert all(later >= earlier for earlier, later in pairwise(gaps))
    assert gaps[-1] > 5 * gaps[0]


def test_a_trial_that_ends_starts_the_patience_anew():
    night = Night()
    assert night.acts(READY, 500, TRIAL) == []
    assert night.until(Act.NUDGE, READY)[1] >= 20 - 5 - 1  # a look at the trial counts for five seconds


def test_talk_without_progress_leads_to_a_fresh_conversation_and_then_to_the_end():
    night = Night(Caps(max_nudges=4))
    done: list[Act] = []
    for _ in range(100):
        action = night.look(READY)
        while action.act is Act.WAIT:
            action = night.look(READY)
        done.append(action.act)
        if action.act is Act.END:
            assert "stuck" in action.reason
            break
        if action.act is Act.RESTART:
            assert action.fresh
            night.memory.task_given = True
        night.acts(BUSY, 30)  # it talks
    assert done.count(Act.RESTART) == 1
    assert 4 < done.count(Act.NUDGE) < 10


def test_a_new_row_in_the_ledger_is_progress_and_talk_is_not():
    night = Night(Caps(max_nudges=3))
    for row in range(1, 50):
        assert night.until(Act.NUDGE, READY)
        night.acts(BUSY, 5)
        assert night.memory.note_progress(row)
    assert not night.memory.note_progress(49)


def test_answers_a_known_dialog_once_it_has_been_seen_twice():
    night = Night(memory=Memory())
    dialog = Sight(state="dialog", dialog="trust", keys=("Enter",), print_of_screen="d")
    assert night.look(dialog).act is Act.WAIT
    action = night.look(dialog)
    assert (action.act, action.keys) == (Act.ANSWER, ("Enter",))
    other = Sight(state="dialog", dialog="bypass", keys=("2",), print_of_screen="e")
    assert night.look(other).act is Act.WAIT
    assert night.look(other).keys == ("2",)


def test_a_dialog_that_stays_is_answered_three_times_and_then_handed_over_once():
    night = Night(memory=Memory())
    dialog = Sight(state="dialog", dialog="trust", keys=("Enter",), print_of_screen="d")
    assert night.acts(dialog, 200) == [Act.ANSWER] * 3 + [Act.HANDOVER]


def test_an_unknown_dialog_is_never_answered_and_told_once():
    night = Night()
    sight = Sight(state="dialog", dialog="unknown", print_of_screen="?")
    assert night.acts(sight, 5000) == [Act.HANDOVER]
    assert night.acts(Sight(state="unknown", print_of_screen="?"), 5000) == [Act.HANDOVER]


def limit(reset: datetime | None, *, menu: bool) -> Sight:
    return Sight(
        state="limit", keys=("Escape",) if menu else (), menu=menu, reset=reset, print_of_screen=f"limit{menu}"
    )


@pytest.mark.parametrize("menu", [True, False])
def test_waits_for_the_told_reset_plus_jitter_and_goes_on_once(menu: bool):
    night = Night()
    reset = night.wall + timedelta(hours=3)
    action, _ = night.until(Act.CLOSE_LIMIT, limit(reset, menu=menu))
    assert action.keys == (("Escape",) if menu else ())
    closed = limit(reset, menu=False)
    action, seconds = night.until(Act.NUDGE, closed)
    assert 3 * 3600 - 20 < seconds < 3 * 3600 + 120
    assert night.acts(BUSY, 3) == []


def test_a_menu_that_opens_again_is_closed_and_the_wait_goes_on():
    night = Night()
    reset = night.wall + timedelta(hours=1)
    night.until(Act.CLOSE_LIMIT, limit(reset, menu=True))
    assert set(night.acts(limit(reset, menu=True), 20)) == {Act.ANSWER}
    assert night.until(Act.NUDGE, limit(reset, menu=False))[1] > 3000


def test_a_clock_that_jumps_ahead_ends_the_wait_at_the_reset_and_one_that_jumps_back_does_not_prolong_it():
    night = Night()
    night.until(Act.CLOSE_LIMIT, limit(night.wall + timedelta(hours=3), menu=False))
    night.wall_shift = timedelta(hours=4)
    assert night.until(Act.NUDGE, limit(None, menu=False))[1] < 10
    night = Night()
    night.until(Act.CLOSE_LIMIT, limit(night.wall + timedelta(hours=3), menu=False))
    night.wall_shift = -timedelta(hours=40)
    assert night.until(Act.NUDGE, limit(None, menu=False))[1] < 3 * 3600 + 120


def test_a_new_supervisor_goes_on_with_the_wait_for_a_limit_as_it_was_read_when_its_words_were_new():
    """By now the old words on the screen, "resets 3am", mean tomorrow."""
    night = Night(Caps(hours=20))
    reset = night.wall + timedelta(hours=3)
    night.until(Act.CLOSE_LIMIT, limit(reset, menu=False))
    night.memory.forget_clock()
    night.now += 2 * 3600
    again, _ = night.until(Act.CLOSE_LIMIT, limit(reset + timedelta(days=1), menu=False))
    assert again.until is not None
    assert again.until - reset < timedelta(minutes=2)
    night.memory.forget_clock()
    night.now += 2 * 3600
    night.until(Act.CLOSE_LIMIT, limit(reset + timedelta(days=1), menu=False))
    assert night.until(Act.NUDGE, limit(reset + timedelta(days=1), menu=False))[1] < 10


def test_a_limit_that_resets_after_the_end_of_the_night_ends_it():
    night = Night(Caps(hours=8))
    action, _ = night.until(Act.END, limit(night.wall + timedelta(days=3), menu=False))
    assert "limit" in action.reason


def test_a_limit_without_a_time_is_tried_later_and_later():
    night = Night()
    waits = []
    for _ in range(3):
        night.until(Act.CLOSE_LIMIT, limit(None, menu=False))
        waits.append(night.until(Act.NUDGE, limit(None, menu=False))[1])
        night.acts(BUSY, 10)
    assert waits[0] == pytest.approx(900, abs=5)
    assert waits[1] == pytest.approx(1800, abs=5)


def error(kind: str) -> Sight:
    return Sight(state="error", ending=kind, detail="API Error", print_of_screen="error")


def test_backs_off_after_api_errors_longer_each_time_and_tells_the_human_after_some():
    night = Night()
    waits, told = [], 0
    for _ in range(6):
        before = night.now
        while True:
            action = night.look(error("overloaded"))
            told += action.act is Act.HANDOVER
            if action.act is Act.NUDGE:
                break
        waits.append(night.now - before)
        night.acts(BUSY, 10)
    assert waits[1] > 1.5 * waits[0]
    assert max(waits) <= 900 + 20
    assert told == 1


def test_what_only_a_human_can_mend_is_told_at_once():
    night = Night()
    assert night.until(Act.HANDOVER, error("auth"))[1] < 20


def test_api_errors_do_not_count_as_an_idle_agent():
    night = Night(Caps(max_nudges=2))
    for _ in range(20):
        while night.look(error("server_error")).act is not Act.NUDGE:
            pass
        night.acts(BUSY, 10)
    assert night.memory.nudges == 0


def test_a_conversation_that_is_too_long_is_left_for_a_fresh_one():
    action, _ = Night().until(Act.RESTART, error("context"))
    assert action.fresh


def test_restarts_a_client_that_ended_with_its_conversation_later_and_later_then_fresh_then_gives_up():
    night = Night()
    waits, fresh = [], []
    while True:
        before = night.now
        action = night.look(GONE)
        while action.act is Act.WAIT:
            action = night.look(GONE)
        if action.act is Act.END:
            break
        waits.append(night.now - before)
        fresh.append(action.fresh)
    assert fresh == [False, False, False, True, True]
    assert waits == sorted(waits)
    assert waits[-1] > 10 * waits[0]


def test_a_client_that_never_worked_is_tried_once_more_and_no_oftener():
    night = Night(memory=Memory())
    night.until(Act.RESTART, GONE)
    assert "Pane is dead" in night.until(Act.END, GONE)[0].reason


def test_a_hanging_client_is_interrupted_and_then_restarted():
    night = Night()
    assert night.until(Act.INTERRUPT, BUSY)[1] == pytest.approx(2700, abs=5)
    assert night.until(Act.RESTART, BUSY)[1] == pytest.approx(2700, abs=5)


def test_a_task_that_could_not_go_with_the_command_is_given_at_the_prompt():
    night = Night(memory=Memory())
    assert night.until(Act.GIVE_TASK, READY)[1] < 10
    assert night.until(Act.NUDGE, READY)


@pytest.mark.parametrize(
    ("caps", "spent", "word"),
    [
        (Caps(hours=1), Spent(), "hours"),
        (Caps(max_experiments=5), Spent(experiments=5), "experiments"),
        (Caps(max_gpu_hours=2), Spent(gpu_h=2.0), "GPU-hours"),
        (Caps(max_tokens=1000), Spent(tokens=1001), "tokens"),
        (Caps(max_cost=3), Spent(cost_usd=3.5), "USD"),
    ],
)
def test_each_cap_ends_the_night_and_says_which(caps: Caps, spent: Spent, word: str):
    night = Night(caps)
    night.memory.elapsed_s = 3600.0
    action = night.look(BUSY, spent=spent)
    assert action.act is Act.END
    assert word in action.reason


def test_no_cap_is_no_end():
    night = Night()
    night.memory.elapsed_s = 1e9
    huge = Spent(experiments=10**6, gpu_h=1e6, tokens=10**12, cost_usd=1e6)
    assert night.look(BUSY, spent=huge).act is Act.WAIT


def test_the_pace_names_what_is_wrong_with_it():
    for bad in ({"nudge": 3}, {"poll_s": -1}, {"poll_s": "fast"}, {"poll_s": True}):
        with pytest.raises(UsageError, match=r"pace\."):
            Pace.from_dict(bad)
    assert Pace.from_dict({"poll_s": 0.2, "restarts": 3}).restarts == 3


STATES = st.sampled_from(
    [READY, BUSY, GONE, error("overloaded"), error("auth"), error("context"), limit(None, menu=True),
     limit(MIDNIGHT + timedelta(hours=2), menu=False), Sight(state="starting"), Sight(state="unknown"),
     Sight(state="dialog", dialog="unknown"), Sight(state="dialog", dialog="trust", keys=("Enter",))]
)  # fmt: skip


@given(st.lists(st.tuples(STATES, st.booleans(), st.integers(1, 400)), max_size=60))
def test_whatever_is_seen_a_trial_is_never_disturbed_and_unknown_screens_get_no_key(seen):
    night = Night(memory=Memory())
    for sight, trial_runs, seconds in seen:
        for _ in range(seconds):
            action = night.look(sight, TRIAL if trial_runs else QUIET)
            if action.act is Act.END:
                return
            if trial_runs and sight.state in ("ready", "busy"):
                assert action.act in (Act.WAIT, Act.GIVE_TASK)
            if action.act is Act.NUDGE:
                assert sight.state in ("ready", "error", "limit")
                assert not trial_runs
            if action.keys:
                assert action.keys == sight.keys
