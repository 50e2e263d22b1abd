package savertest

import (
	"fmt"
	"testing"

	"carillon/server/planted"
	"carillon/server/push"
)

// Trial has something happen to the batches of a task, and returns what is not as it was promised: nothing, unless one of its planted bugs is there.
type Trial struct {
	Name string
	Bugs []planted.Bug
	run  func(*env) []string
}

// Run runs the trial on an empty store.
func (tr Trial) Run(t *testing.T, s *Subject) []string { return tr.run(newEnv(t, s)) }

// TaskTrials find the planted bugs of tasks.
func TaskTrials() []Trial {
	return []Trial{
		{"a batch comes after somebody took over", []planted.Bug{planted.BatchWithoutFence}, trialFenced},
		{"a batch comes again", []planted.Bug{planted.BatchUnmarked}, trialAgain},
	}
}

// trialFenced writes under a token that was raised meanwhile.
func trialFenced(e *env) (found []string) {
	c := e.campaign("m")
	c.fence(1)
	late := c.own(0, usersIn(0, 3)...)
	c.fence(2)
	late.Token = 1
	if r := e.tryBatch(late); r.Err == nil {
		found = append(found, "a batch under an old token was accepted")
	}
	for _, u := range late.Own {
		if n := len(e.readAll(readOf(u.User, push.Own, push.Place{}))); n > 0 {
			found = append(found, fmt.Sprintf("%s has %d entries that were written under an old token", u.User, n))
		}
	}
	return found
}

// trialAgain writes a batch three times.
func trialAgain(e *env) (found []string) {
	c := e.campaign("m")
	c.fence(1)
	b := c.own(0, usersIn(0, 3)...)
	first := e.batch(b)
	for range 2 {
		if r := e.batch(b); !r.Found || !samePlaces(r.Own, first.Own) {
			found = append(found, "a batch that comes again is not answered as the first time")
		}
	}
	for _, u := range b.Own {
		if n := len(e.readAll(readOf(u.User, push.Own, push.Place{}))); n != 1 {
			found = append(found, fmt.Sprintf("%s has the message %d times", u.User, n))
		}
	}
	return found
}
