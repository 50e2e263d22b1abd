package redis

import (
	"hash/maphash"
	"sync/atomic"

	"carillon/server/redisdb"
)

// guesses remembers the states of slots that this node wrote lately, so that an append can be decided without asking for one. A guess that is wrong costs
// the attempt: the write is made on the condition that the state is that one. So it harms nothing that a state is forgotten, outlived, or
// taken for another's whose hash is the same.
type guesses struct {
	seed  maphash.Seed
	table []atomic.Pointer[guess]

	tried, wrong atomic.Int32 // since the last judgement
	pause        atomic.Int32 // so many are not tried, since others write to the same slots
}

// guess is the state of a slot.
type guess struct {
	hash  uint64
	state string
}

// guessesMost is how many states are remembered, at most: some 100 bytes each. Every guessesJudged it is looked whether a quarter of them were wrong; then
// guessesPause are not tried.
const (
	guessesMost   = 1 << 18
	guessesJudged = 256
	guessesPause  = 1 << 13
)

func newGuesses() *guesses {
	return &guesses{seed: maphash.MakeSeed(), table: make([]atomic.Pointer[guess], guessesMost)}
}

// place returns where the state of a slot is remembered, and the hash by which.
func (g *guesses) place(s *slot) (*atomic.Pointer[guess], uint64) {
	if s.hash == 0 {
		s.hash = maphash.Comparable(g.seed, s.keys)
	}
	return &g.table[s.hash%guessesMost], s.hash
}

// of returns the state that a slot had when it was last written here.
func (g *guesses) of(s *slot) (string, bool) {
	at, hash := g.place(s)
	if is := at.Load(); is != nil && is.hash == hash {
		return is.state, true
	}
	return "", false
}

// note remembers what the write of a slot, which was done, made its state. The caller has the slot's turn.
func (g *guesses) note(s *slot) {
	if !s.changed && !s.forgotten {
		return
	}
	at, hash := g.place(s)
	if s.forgotten {
		at.Store(nil)
		return
	}
	at.Store(&guess{hash, string(s.stateAs)})
}

// forget forgets what is remembered of a slot that was written, if anything is. A batch of a task does so in place of noting: it writes to many users of whom
// most are offline, and would send away what is remembered of those who are written to now.
func (g *guesses) forget(s *slot) {
	at, hash := g.place(s)
	if is := at.Load(); is != nil && is.hash == hash {
		at.Store(nil)
	}
}

// drop forgets a state that turned out wrong.
func (g *guesses) drop(s *slot) {
	at, _ := g.place(s)
	at.Store(nil)
}

// may reports whether guesses are tried now.
func (g *guesses) may() bool {
	return g.pause.Load() <= 0 || g.pause.Add(-1) <= 0
}

// judged counts a guess that was tried.
func (g *guesses) judged(right bool) {
	if !right {
		g.wrong.Add(1)
	}
	if g.tried.Add(1) < guessesJudged {
		return
	}
	if wrong := g.wrong.Swap(0); wrong > guessesJudged/4 {
		g.pause.Store(guessesPause)
	}
	g.tried.Store(0)
}

// guess answers, in place of the database, what the op asked for, if it appends to slots whose states are remembered and relies on nothing else.
func (o *partsOp) guess(now redisdb.Answer) bool {
	if len(o.indexes) > 0 || !o.s.guesses.may() {
		return false
	}
	replies := o.few.replies[:0]
	for _, sl := range o.slots {
		state, ok := o.s.guesses.of(sl)
		if !ok {
			return false
		}
		replies = append(replies, state)
	}
	for _, p := range o.parts {
		if p.marked { // its key is new, and so is its id, or else all is asked again
			replies = append(replies, nil)
		}
	}
	o.r.Replies, o.r.Answer, o.guessed = replies, now, true
	return true
}

// judge counts whether the guess that an attempt began with was right.
func (o *partsOp) judge(right bool) {
	if !o.guessed {
		return
	}
	o.guessed = false
	o.s.guesses.judged(right)
	if !right {
		for _, sl := range o.slots {
			o.s.guesses.drop(sl)
		}
	}
}
