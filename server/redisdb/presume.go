package redisdb

import (
	"time"

	"carillon/server/push"
)

// heard is what a primary said last, and when.
type heard struct {
	Answer
	at time.Time
}

// presumeMost is how old an answer may be for others to be presumed from it.
const presumeMost = time.Second

func (p *primary) hear(a Answer) { p.heard.Store(&heard{a, p.db.clock()}) }

func (db *DB) clock() time.Time {
	if db.config.Clock != nil {
		return db.config.Clock.Now()
	}
	return time.Now()
}

// Presume returns lineage and time as a read would find them now, from what the primary that has the tag said within the last second. ok is false
// if it said nothing. It is for a write that is made without a read: one under that lineage is not done where the lineage is another by now, and
// the time is that of Redis but for what a round trip takes.
func (db *DB) Presume(t Tag) (a Answer, ok bool) {
	at := 0
	if len(db.layout.slots) > 1 {
		at = t.slot()
	}
	p := db.layout.slots[at].Load()
	if p == nil {
		return Answer{}, false
	}
	h := p.heard.Load()
	if h == nil {
		return Answer{}, false
	}
	now := db.clock()
	since := now.Sub(h.at)
	if since < 0 || since > presumeMost {
		return Answer{}, false
	}
	if a = h.Answer; db.config.Clock != nil {
		a.Now = push.Milli(now)
	} else {
		a.Now = a.Now.Add(since)
	}
	return a, true
}
