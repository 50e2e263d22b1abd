package engine

import (
	"testing"

	"carillon/server/transport"
)

// list is a ready list with connections by number.
type list struct {
	readyList
	conns []*Conn
}

func newList(n int) *list {
	l := &list{}
	l.init()
	for range n {
		l.conns = append(l.conns, &Conn{})
	}
	return l
}

// next pops one and returns its number.
func (l *list) next() int {
	c := l.pop()
	for i := range l.conns {
		if l.conns[i] == c {
			return i
		}
	}
	return -1
}

func TestReady_DirectGoesFirstAndBulkIsNotStarved(t *testing.T) {
	const n = 4 * directTurns
	l := newList(2 * n)
	for i := range n {
		l.push(l.conns[i], transport.Bulk)
	}
	for i := n; i < 2*n; i++ {
		l.push(l.conns[i], transport.Direct)
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

func TestReady_PromotedOnesLeaveTheBulk(t *testing.T) {
	l := newList(4)
	for i := range 4 {
		l.push(l.conns[i], transport.Bulk)
	}
	l.promote(l.conns[2]) // from the middle
	l.promote(l.conns[0]) // the first
	l.promote(l.conns[0]) // and again
	l.promote(l.conns[3]) // the last
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
func TestReady_PromotingOneThatWasTakenDoesNotConcernItsNextTurn(t *testing.T) {
	l := newList(3)
	l.push(l.conns[0], transport.Bulk)
	if got := l.next(); got != 0 {
		t.Fatalf("got connection %d, want 0", got)
	}
	l.promote(l.conns[0])
	l.push(l.conns[1], transport.Bulk)
	l.push(l.conns[0], transport.Bulk)
	l.push(l.conns[2], transport.Direct)
	for _, want := range []int{2, 1, 0} {
		if got := l.next(); got != want {
			t.Fatalf("got connection %d, want %d", got, want)
		}
	}
}
