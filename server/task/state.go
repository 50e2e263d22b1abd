package task

import (
	"slices"

	"carillon/server/planted"
	"carillon/server/push"
)

// State is where a task stands.
type State string

// The states.
const (
	Draft            State = "draft"             // being written; nothing happens
	AwaitingApproval State = "awaiting_approval" // somebody else has to approve it
	Scheduled        State = "scheduled"         // starts at its time, or as soon as somebody runs it; a recurring one stays here
	Running          State = "running"           // its message is being written
	Paused           State = "paused"            // nothing is written until it is resumed
	Stopped          State = "stopped"           // nothing more will be written
	Recalling        State = "recalling"         // what was written is being taken back
	Completed        State = "completed"         // all is written
	Failed           State = "failed"            // it cannot go on; Reason says why
)

// States lists all states.
func States() []State {
	return []State{Draft, AwaitingApproval, Scheduled, Running, Paused, Stopped, Recalling, Completed, Failed}
}

// Ended reports whether nothing happens to the task any more unless somebody wants it.
func (s State) Ended() bool { return s == Stopped || s == Completed || s == Failed }

// Active reports whether somebody has to run the task.
func (s State) Active() bool { return s == Scheduled || s == Running || s == Recalling }

// Move is what changes a state.
type Move string

// The moves. Operators make the first six, whoever runs a task the others.
const (
	Approve Move = "approve"
	Resume  Move = "resume" // of a draft: it is handed in
	Pause   Move = "pause"
	Stop    Move = "stop"
	Recall  Move = "recall"
	Clone   Move = "clone" // changes nothing of the task itself

	Begin     Move = "begin"
	Complete  Move = "complete"
	Fail      Move = "fail"
	Show      Move = "show"       // the test group has it
	Expire    Move = "expire"     // the deadline came
	TakenBack Move = "taken_back" // the recall is done
)

// Step is one allowed move.
type Step struct {
	Move Move
	From State
	To   State
}

// Moves is the table of all allowed moves; docs/tasks.md shows it, and a test holds the two together. A draft that needs approval is handed in to
// AwaitingApproval, which [Task.Do] decides.
var Moves = []Step{
	{Resume, Draft, Scheduled},
	{Stop, Draft, Stopped},
	{Approve, AwaitingApproval, Scheduled},
	{Stop, AwaitingApproval, Stopped},
	{Expire, AwaitingApproval, Stopped},
	{Begin, Scheduled, Running},
	{Pause, Scheduled, Paused},
	{Stop, Scheduled, Stopped},
	{Expire, Scheduled, Stopped},
	{Fail, Scheduled, Failed},
	{Complete, Running, Completed},
	{Show, Running, Paused},
	{Pause, Running, Paused},
	{Stop, Running, Stopped},
	{Expire, Running, Stopped},
	{Fail, Running, Failed},
	{Recall, Running, Recalling},
	{Resume, Paused, Scheduled},
	{Stop, Paused, Stopped},
	{Expire, Paused, Stopped},
	{Recall, Paused, Recalling},
	{Recall, Stopped, Recalling},
	{Recall, Completed, Recalling},
	{Resume, Failed, Scheduled},
	{Stop, Failed, Stopped},
	{Recall, Failed, Recalling},
	{TakenBack, Recalling, Stopped},
}

// Allowed returns the moves that operators may make from a state, in the order of the constants.
func Allowed(s State) []Move {
	var out []Move
	for _, m := range []Move{Approve, Resume, Pause, Stop, Recall} {
		if slices.ContainsFunc(Moves, func(t Step) bool { return t.Move == m && t.From == s }) {
			out = append(out, m)
		}
	}
	return append(out, Clone)
}

// Do makes a move, and notes it. It raises the token where the move ends writing, and gives up the lease. By is nil for the system's own moves.
// KindConflict, "task_move": the state does not allow it.
func (t *Task) Do(m Move, by *Actor, reason string, now push.MilliTime) error {
	i := slices.IndexFunc(Moves, func(s Step) bool { return s.Move == m && s.From == t.State })
	if i < 0 {
		return push.Errorf(push.KindConflict, "task_move", "a task that is %s cannot do that: %s", t.State, m)
	}
	to := Moves[i].To
	if m == Resume && t.State == Draft && t.Approval {
		to = AwaitingApproval
	}
	t.Moves = append(t.Moves, Moved{Move: m, From: t.State, To: to, By: by, Reason: reason, At: now})
	if n := len(t.Moves) - MaxMoves; n > 0 {
		t.Moves = slices.Delete(t.Moves, 0, n)
	}
	if t.State == Running && (m == Pause || m == Stop || m == Expire || m == Recall || m == Fail) {
		t.Run.Recount = true
	}
	if t.State == Running || t.State == Recalling || to == Recalling {
		if !planted.Is(planted.TaskTokenKept) {
			t.Run.Token++
		}
		t.Run.Holder, t.Run.Until = "", 0
	}
	t.State, t.Reason, t.Changed = to, reason, now
	switch {
	case to.Ended():
		t.Run.Ended = now
	case to == Scheduled || to == Recalling:
		t.Run.Ended = 0
	}
	if m == Resume && t.Run.TestDone {
		t.Run.TestShown = true
	}
	t.SetWake()
	return nil
}

// KeepEvery is how often somebody says of a task that waits that its list is needed.
const KeepEvery = ListKept / 3

// NeedsList reports whether the task waits, and its list has to wait with it.
func (t *Task) NeedsList() bool {
	return t.List != 0 && (t.State == Scheduled || t.State == AwaitingApproval || t.State == Paused)
}

// IsDue reports whether a scheduled task is to begin, or a recurring one to recur.
func (t *Task) IsDue(now push.MilliTime) bool {
	if t.Cron != "" {
		return t.Run.Due <= now
	}
	return t.Start <= now
}

// SetWake says when somebody has to look at the task next.
func (t *Task) SetWake() {
	t.Wake = 0
	switch t.State {
	case Scheduled:
		t.Wake = max(t.Start, 1)
		if t.Cron != "" {
			t.Wake = max(t.Run.Due, 1)
		}
		if t.Deadline != 0 {
			t.Wake = min(t.Wake, t.Deadline)
		}
	case Running, Recalling:
		t.Wake = max(t.Run.Until, 1)
	case AwaitingApproval, Paused:
		t.Wake = t.Deadline
	}
	if t.NeedsList() && (t.Wake == 0 || t.Run.Kept.Add(KeepEvery) < t.Wake) {
		t.Wake = max(t.Run.Kept.Add(KeepEvery), 1)
	}
	if t.Run.Recount && !t.State.Active() {
		t.Wake = 1
	}
}
