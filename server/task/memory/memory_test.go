package memory

import (
	"testing"

	"go.uber.org/goleak"

	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/task/tasktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newFixture(t *testing.T) *tasktest.Fixture {
	c := clocktest.New()
	s := New(Config{Clock: c})
	t.Cleanup(func() { s.Close() })
	return &tasktest.Fixture{Store: s, Now: func() push.MilliTime { return push.Milli(c.Now()) }, Elapse: c.Advance}
}

func TestConformance(t *testing.T) { tasktest.Run(t, newFixture) }
