package ready

import (
	"testing"

	"carillon/server/transport"
)

// conn is a connection as lists see it.
type conn struct{ entry Entry[conn] }

// list is a list with connections by number.
type list struct {
	*List[conn]
	conns []*conn
}

func newList(n int) *list {
	l := &list{List: New(func(c *conn) *Entry[conn] { return &c.entry })}
	for range n {
		l.conns = append(l.conns, &conn{})
	}
	return l
}

// next pops one and returns its number.
func (l *list) next() int {
	c := l.Pop()
	for i := range l.conns {
		if l.conns[i] == c {
			return i
		}
	}
	return -1
}

func TestList_DirectGoesFirstAndBulkIsNotStarved(t *testing.T) {
	const n = 4 * directTurns
	l := newList(2 * n)
	for i := range n {
		l.Push(l.conns[i], transport.Bulk)
	}
	for i := n; i < 2*n; i++ {
		l.Push(l.conns[i], transport.Direct)
	}
	direct, bulk := n, 0
	for turn := range 2 * n {
		got, want := l.next(), direct
		if direct == 2*n || turn%(directTurns+1) == directTurns {
			want = bulk
			bulk++
		} else {
			direct++
		}
		if got != want {
			t.Fatalf("turn %d: got connection %d, want %d", turn, got, want)
		}
	}
}

func TestList_PromotedOnesLeaveTheBulk(t *testing.T) {
	l := newList(4)
	for i := range 4 {
		l.Push(l.conns[i], transport.Bulk)
	}
	l.Promote(l.conns[2]) // from the middle
	l.Promote(l.conns[0]) // the first
	l.Promote(l.conns[3]) // the last
	for _, want := range []int{2, 0, 3, 1} {
		if got := l.next(); got != want {
			t.Fatalf("got connection %d, want %d", got, want)
		}
	}
	for q := range l.lists {
		if l.lists[q].head != nil || l.lists[q].tail != nil {
			t.Errorf("list %d is not empty", q)
		}
	}
}

// A wake may become urgent when a worker has its connection already. What is pushed later is pushed for its own sake.
func TestList_PromotingOneThatWasTakenDoesNotConcernItsNextTurn(t *testing.T) {
	l := newList(3)
	l.Push(l.conns[0], transport.Bulk)
	if got := l.next(); got != 0 {
		t.Fatalf("got connection %d, want 0", got)
	}
	l.Promote(l.conns[0])
	l.Push(l.conns[1], transport.Bulk)
	l.Push(l.conns[0], transport.Bulk)
	l.Push(l.conns[2], transport.Direct)
	for _, want := range []int{2, 1, 0} {
		if got := l.next(); got != want {
			t.Fatalf("got connection %d, want %d", got, want)
		}
	}
}

func TestList_CloseSendsWorkersHome(t *testing.T) {
	l := newList(1)
	done := make(chan *conn)
	for range 2 {
		go func() { done <- l.Pop() }()
	}
	l.Close()
	for range 2 {
		if c := <-done; c != nil {
			t.Error("a closed list hands out a connection")
		}
	}
	l.Push(l.conns[0], transport.Direct)
	if c := l.Pop(); c != nil {
		t.Error("a closed list hands out a connection that was pushed later")
	}
}

func TestList_WorkServesInTurnAndLooksAfterTheRest(t *testing.T) {
	const n = 3*yieldEvery + 1
	l := newList(n)
	for i := range n {
		l.Push(l.conns[i], transport.Bulk)
	}
	served, helped := 0, 0
	l.Work(func(c *conn) {
		if c != l.conns[served] {
			t.Errorf("connection %d came out of turn", served)
		}
		if served++; served == n {
			l.Close()
		}
	}, func() { helped++ })
	if served != n || helped != 3 {
		t.Errorf("served %d and helped %d times, want %d and 3", served, helped, n)
	}
}
