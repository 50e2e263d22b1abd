package memory

import (
	"testing"

	"go.uber.org/goleak"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { savertest.Run(t, newSubject) }

func newSubject(t *testing.T) *savertest.Subject {
	s := &savertest.Subject{Clock: savertest.NewClock(), Locator: savertest.NewLocator()}
	open := func(t *testing.T) *Store {
		st, err := New(Config{Clock: s.Clock, Locator: s.Locator})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
		return st
	}
	st := open(t)
	s.Store = st
	s.Sweep = st.Sweep
	s.LoseBucket = func(t *testing.T, p push.ProductID, id push.MsgID) {
		if !st.LoseBucket(p, id) {
			t.Fatalf("no entry of message %d", id)
		}
	}
	s.LoseSlot = func(t *testing.T, u saver.UserRef, k push.SlotKind) {
		if !st.LoseSlot(u, k) {
			t.Fatal("no such slot")
		}
	}
	s.Mark = func(t *testing.T) func(t *testing.T) saver.Store {
		sn := snapshot(t, st)
		return func(t *testing.T) saver.Store {
			if err := st.Restore(sn); err != nil {
				t.Fatal(err)
			}
			return st
		}
	}
	s.Reopen = func(t *testing.T) saver.Store {
		sn := snapshot(t, st)
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		st = open(t)
		s.Sweep = st.Sweep
		if err := st.Restore(sn); err != nil {
			t.Fatal(err)
		}
		return st
	}
	return s
}

func snapshot(t *testing.T, st *Store) *Snapshot {
	sn, err := st.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return sn
}
