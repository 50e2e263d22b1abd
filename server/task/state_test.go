package task

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"carillon/server/push"
)

// every lists all moves.
var every = []Move{Approve, Resume, Pause, Stop, Recall, Clone, Begin, Complete, Fail, Show, Expire, TakenBack}

// allowed is what may follow on what, written down a second time: by state, each move and where it leads.
var allowed = map[State]map[Move]State{
	Draft:            {Resume: Scheduled, Stop: Stopped},
	AwaitingApproval: {Approve: Scheduled, Stop: Stopped, Expire: Stopped},
	Scheduled:        {Begin: Running, Pause: Paused, Stop: Stopped, Expire: Stopped, Fail: Failed},
	Running: {Complete: Completed, Show: Paused, Pause: Paused, Stop: Stopped, Expire: Stopped, Fail: Failed,
		Recall: Recalling},
	Paused:    {Resume: Scheduled, Stop: Stopped, Expire: Stopped, Recall: Recalling},
	Stopped:   {Recall: Recalling},
	Completed: {Recall: Recalling},
	Failed:    {Resume: Scheduled, Stop: Stopped, Recall: Recalling},
	Recalling: {TakenBack: Stopped},
}

// under is a task in a state, with a lease.
func under(s State) Task {
	t := Task{State: s, Run: Run{Token: 5, Holder: "center", Until: 900}}
	t.SetWake()
	return t
}

func TestTask_DoMakesTheMovesOfTheTableAndNoOthers(t *testing.T) {
	by := &Actor{Key: "k", At: 1000}
	for _, from := range States() {
		for _, m := range every {
			is, was := under(from), under(from)
			err := is.Do(m, by, "why", 1000)
			to, ok := allowed[from][m]
			if !ok {
				var e *push.Error
				if !errors.As(err, &e) || e.Kind != push.KindConflict || e.Code != "task_move" {
					t.Errorf("%s of a task that is %s: %v, want task_move", m, from, err)
				}
				if !reflect.DeepEqual(is, was) {
					t.Errorf("%s of a task that is %s: refused, and changed it", m, from)
				}
				continue
			}
			if err != nil || is.State != to {
				t.Errorf("%s of a task that is %s: %s, %v, want %s", m, from, is.State, err, to)
				continue
			}
			if want := []Moved{{m, from, to, by, "why", 1000}}; !reflect.DeepEqual(is.Moves, want) || is.Reason != "why" || is.Changed != 1000 {
				t.Errorf("%s of a task that is %s is noted as %+v, %s, %d", m, from, is.Moves, is.Reason, is.Changed)
			}
			// Writing ends where a task was being written or taken back, and where taking back begins.
			if ends := from == Running || from == Recalling || m == Recall; ends {
				if is.Run.Token != 6 || is.Run.Holder != "" || is.Run.Until != 0 {
					t.Errorf("%s of a task that is %s leaves token %d, holder %q, until %d", m, from, is.Run.Token, is.Run.Holder, is.Run.Until)
				}
			} else if is.Run.Token != 5 || is.Run.Holder != "center" || is.Run.Until != 900 {
				t.Errorf("%s of a task that is %s takes the lease: %+v", m, from, is.Run)
			}
			if ended := slices.Contains([]State{Stopped, Completed, Failed}, to); ended != (is.Run.Ended == 1000) || ended != is.State.Ended() {
				t.Errorf("%s of a task that is %s: ended at %d", m, from, is.Run.Ended)
			}
			// What was written after the last checkpoint is counted where somebody else than whoever writes it ends the writing.
			if counts := from == Running && slices.Contains([]Move{Pause, Stop, Expire, Recall, Fail}, m); counts != is.Run.Recount {
				t.Errorf("%s of a task that is %s: counted again: %v", m, from, is.Run.Recount)
			}
			if is.State.Ended() && is.Run.Recount != (is.Wake == 1) {
				t.Errorf("%s of a task that is %s: somebody looks at it at %d", m, from, is.Wake)
			}
		}
	}
}

func TestMoves_AreAllReachable(t *testing.T) {
	for i, a := range Moves {
		if allowed[a.From][a.Move] != a.To {
			t.Errorf("%+v is not expected", a)
		}
		for _, b := range Moves[:i] {
			if a.From == b.From && a.Move == b.Move {
				t.Errorf("%s of a task that is %s stands there twice", a.Move, a.From)
			}
		}
	}
	for _, s := range States() {
		var want []Move
		for _, m := range every[:5] {
			if _, ok := allowed[s][m]; ok {
				want = append(want, m)
			}
		}
		if got := Allowed(s); !slices.Equal(got, append(want, Clone)) {
			t.Errorf("operators may do %v to a task that is %s, want %v and clone", got, s, want)
		}
	}
}

func TestTask_DraftThatNeedsApprovalIsHandedInToWait(t *testing.T) {
	is := Task{State: Draft, Approval: true, Spec: Spec{Deadline: 70}}
	if err := is.Do(Resume, nil, "", 10); err != nil || is.State != AwaitingApproval || is.Wake != 70 || is.Moves[0].To != AwaitingApproval {
		t.Errorf("handed in: %s, wakes at %d, %v", is.State, is.Wake, err)
	}
	if err := is.Do(Approve, nil, "", 20); err != nil || is.State != Scheduled || is.Wake != 1 {
		t.Errorf("approved: %s, wakes at %d, %v", is.State, is.Wake, err)
	}
	if err := is.Do(Pause, nil, "", 30); err != nil {
		t.Fatal(err)
	}
	if err := is.Do(Resume, nil, "", 40); err != nil || is.State != Scheduled {
		t.Errorf("resumed, it is approved once for all: %s, %v", is.State, err)
	}
}

func TestTask_WhatGoesOnAgainHasNotEnded(t *testing.T) {
	for _, test := range []struct {
		from State
		move Move
	}{{Failed, Resume}, {Stopped, Recall}, {Completed, Recall}} {
		is := Task{State: test.from, Run: Run{Ended: 5}}
		if err := is.Do(test.move, nil, "", 10); err != nil || is.Run.Ended != 0 {
			t.Errorf("%s of a task that is %s: ended at %d, %v", test.move, test.from, is.Run.Ended, err)
		}
	}
}

func TestTask_ResumingAfterTheTestGroupShowsItToAll(t *testing.T) {
	is := Task{State: Running}
	is.Run.TestDone = true
	if err := is.Do(Show, nil, ReasonTest, 10); err != nil || is.State != Paused || is.Run.TestShown {
		t.Fatalf("shown to the test group: %s, %v, %v", is.State, is.Run.TestShown, err)
	}
	if err := is.Do(Resume, nil, "", 20); err != nil || !is.Run.TestShown {
		t.Errorf("resumed: %v, %v", is.Run.TestShown, err)
	}
	other := Task{State: Paused}
	if err := other.Do(Resume, nil, "", 20); err != nil || other.Run.TestShown {
		t.Errorf("resumed before the test group has it: %v, %v", other.Run.TestShown, err)
	}
}

func TestTask_KeepsTheLatestMoves(t *testing.T) {
	is := Task{State: Scheduled}
	for i := range push.MilliTime(MaxMoves + 11) {
		m := Pause
		if i%2 == 1 {
			m = Resume
		}
		if err := is.Do(m, nil, "", i+1); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(is.Moves); n != MaxMoves || is.Moves[0].At != 12 || is.Moves[n-1].At != MaxMoves+11 {
		t.Errorf("%d moves are kept, from %d to %d", n, is.Moves[0].At, is.Moves[n-1].At)
	}
}

func TestTask_WakeSaysWhenSomebodyHasToLook(t *testing.T) {
	for _, test := range []struct {
		state           State
		start, deadline push.MilliTime
		cron            string
		due, until      push.MilliTime
		want            push.MilliTime
	}{
		{state: Draft, start: 5, deadline: 9, want: 0},
		{state: AwaitingApproval, start: 5, want: 0},
		{state: AwaitingApproval, start: 5, deadline: 9, want: 9},
		{state: Scheduled, want: 1},
		{state: Scheduled, start: 5, want: 5},
		{state: Scheduled, start: 5, deadline: 9, want: 5},
		{state: Scheduled, start: 5, deadline: 3, want: 3},
		{state: Scheduled, start: 5, cron: "0 9 * * *", due: 70, want: 70},
		{state: Scheduled, start: 5, cron: "0 9 * * *", due: 70, deadline: 60, want: 60},
		{state: Scheduled, start: 5, cron: "0 9 * * *", want: 1},
		{state: Running, start: 5, deadline: 9, want: 1},
		{state: Running, until: 80, want: 80},
		{state: Recalling, until: 80, deadline: 9, want: 80},
		{state: Recalling, want: 1},
		{state: Paused, start: 5, until: 80, want: 0},
		{state: Paused, start: 5, until: 80, deadline: 9, want: 9},
		{state: Stopped, start: 5, until: 80, deadline: 9, want: 0},
		{state: Completed, start: 5, until: 80, deadline: 9, want: 0},
		{state: Failed, start: 5, until: 80, deadline: 9, want: 0},
	} {
		is := Task{State: test.state, Wake: 999, Spec: Spec{Start: test.start, Deadline: test.deadline, Cron: test.cron}, Run: Run{Due: test.due, Until: test.until}}
		if is.SetWake(); is.Wake != test.want {
			t.Errorf("%+v: wakes at %d", test, is.Wake)
		}
		if test.state.Active() != (test.state == Scheduled || test.state == Running || test.state == Recalling) {
			t.Errorf("%s: active %v", test.state, test.state.Active())
		}
	}
}

func TestCounts_Flight(t *testing.T) {
	var c Counts
	for _, one := range []Counts{{Sent: 10, Returned: 2}, {Acknowledged: 3, Displayed: 50, Clicked: 40, Dropped: 1}} {
		c.Add(one)
	}
	if c != (Counts{10, 2, 3, 50, 40, 1}) || c.Flight() != 4 {
		t.Errorf("got %v, %d in flight, want 4", c, c.Flight())
	}
	c.Add(Counts{Returned: 9})
	if c.Flight() != 0 {
		t.Errorf("%d in flight, want none", c.Flight())
	}
	for k, name := range []string{"sent", "returned", "acknowledged", "displayed", "clicked", "dropped"} {
		if Kind(k).String() != name || Kinds != 6 {
			t.Errorf("kind %d of %d is called %s, want %s", k, Kinds, Kind(k), name)
		}
	}
}
