package roster

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
)

// conn is a connection as rosters see it.
type conn struct{ entry Entry[conn] }

func newRoster() *Roster[conn] { return New(func(c *conn) *Entry[conn] { return &c.entry }) }

func TestRoster_ListsWhoEnteredAndDidNotLeave(t *testing.T) {
	r := newRoster()
	a, b, c := &conn{}, &conn{}, &conn{}
	for _, who := range []*conn{a, b, c} {
		if !r.Enter(who) {
			t.Fatal("an open roster refuses")
		}
	}
	for _, step := range []struct {
		leaves *conn
		want   []*conn
	}{{b, []*conn{c, a}}, {c, []*conn{a}}, {a, nil}} {
		r.Leave(step.leaves)
		if got := r.list(); !slices.Equal(got, step.want) || r.Len() != len(step.want) {
			t.Errorf("got %d listed and %d counted, want %d", len(got), r.Len(), len(step.want))
		}
		if step.leaves.entry != (Entry[conn]{}) {
			t.Error("one who left holds others")
		}
	}
}

func TestRoster_ClosedRefusesWhoIsNewAndLetsJoinWhileSomebodyIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoster()
		c := &conn{}
		r.Enter(c)
		cuts := make(chan int, 1)
		go func() { cuts <- r.Close(t.Context(), func(*conn) { t.Error("one who may stay was cut") }) }()
		synctest.Wait()
		if r.Enter(&conn{}) {
			t.Error("somebody entered a closed roster")
		}
		if !r.Join() {
			t.Error("nobody may join the last one who is there")
		}
		r.Leave(c)
		synctest.Wait()
		if len(cuts) > 0 {
			t.Fatal("Close did not wait for who joined")
		}
		r.Part()
		if got := <-cuts; got != 0 {
			t.Errorf("cut: got %d, want 0", got)
		}
		if r.Join() {
			t.Error("somebody joined when all had left")
		}
	})
}

func TestRoster_CloseCutsWhoIsLeftAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoster()
		a, b := &conn{}, &conn{}
		r.Enter(a)
		r.Enter(b)
		r.Join()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		cuts, cut := make(chan int, 1), make(chan *conn, 2)
		go func() { cuts <- r.Close(ctx, func(c *conn) { cut <- c }) }()
		r.Leave(<-cut)
		r.Leave(<-cut)
		synctest.Wait()
		if len(cuts) > 0 {
			t.Fatal("Close did not wait for who joined")
		}
		r.Part()
		if got := <-cuts; got != 2 {
			t.Errorf("cut: got %d, want 2", got)
		}
		if got := r.Close(t.Context(), nil); got != 0 {
			t.Errorf("a second Close: got %d cut, want 0", got)
		}
	})
}
