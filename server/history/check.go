package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Violation is one breach of the promise.
type Violation struct {
	Rule   string
	Detail string
}

func (v Violation) String() string { return v.Rule + ": " + v.Detail }

// Run is what Check needs to know of a run beside its records.
type Run struct {
	// Devices lists devices that were connected until they had caught up after the last message was sent: what was accepted has to
	// be at each that it is meant for. One without Online records existed before the first message was sent.
	Devices []Device
	// AcksBySlot says that acknowledgements are recorded for each slot, so that one covers what its device handled there.
	AcksBySlot bool
	// EveryoneLater says that a message to everyone is accepted before it is in its slots: whoever finishes it for a node that died may do
	// so after its sender sent others. Devices still have to agree about its place.
	EveryoneLater bool
	// ClockSteps says that the store's clock was set during the run: what had expired may be live again.
	ClockSteps bool

	// How late things may come while nothing keeps a device from taking them; 0: not judged.
	LiveWithin   time.Duration // a message that is not persistent, after it was sent
	KickWithin   time.Duration // anything at a session, after another of its device was welcomed or it had to go
	ExpireWithin time.Duration // a message, after it expired
}

// sent is one message that a sender wanted to be sent.
type sent struct {
	Record
	last      time.Duration // when it was sent last
	done      time.Duration // when its last outcome was known
	ok        bool
	id        string     // the last that it was accepted under, or was delivered under to somebody
	accepted  []accepted // under each id that it got: more than one only if the store lost the first
	recalled  bool
	collapsed bool // a newer one took its place, or may have
	again     bool // sent again after the store lost something: it may lie behind what its sender sent later
}

// known returns when its sender knew the outcome, and could go on: a batch is one step of its sender's.
func (s *sent) known() time.Duration {
	switch {
	case len(s.accepted) > 0:
		return s.accepted[0].at
	case s.done > 0:
		return s.done
	}
	return s.At + 1 // it was never told, and still it sent what comes later
}

type accepted struct {
	id       string
	from, at time.Duration // it was stored between these
}

type sendKey struct {
	sender string
	seq    int
}

type checker struct {
	run    Run
	sends  map[sendKey]*sent
	order  []*sent // by first sending
	byID   map[string]*sent
	byDev  map[Device][]Record // what a device did and saw, in its order
	losses []Record
	stalls []Record
	asked  map[tagSet][]*tagged // tags, in the order in which they were asked for
	end    time.Duration        // of the last record
	out    []Violation
}

// Check judges the records of a run that has come to rest and returns all violations it finds, none if the promise held.
func Check(run Run, records []Record) []Violation {
	c := &checker{run: run, sends: make(map[sendKey]*sent), byID: make(map[string]*sent), byDev: make(map[Device][]Record)}
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.At, b.At) })
	c.index(records)
	c.indexTags(records)
	c.keys()
	c.noteCollapsed()
	for dev, rs := range c.byDev {
		c.device(dev, rs)
	}
	c.lost()
	c.agree()
	c.positions()
	c.tagsAtRest(records)
	slices.SortFunc(c.out, func(a, b Violation) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Detail, b.Detail)) })
	return c.out
}

func (c *checker) violate(rule, format string, args ...any) {
	c.out = append(c.out, Violation{rule, fmt.Sprintf(format, args...)})
}

// index sorts the records out, and learns the ids of messages whose sender never got an answer from their deliveries.
func (c *checker) index(records []Record) {
	byBody := make(map[string]*sent)
	for _, r := range records {
		k := sendKey{r.Sender, r.Seq}
		switch r.Kind {
		case Invoke:
			s := c.sends[k]
			if s == nil { // a repetition under the same key is the same message
				s = &sent{Record: r}
				c.sends[k] = s
				c.order = append(c.order, s)
				byBody[r.Body] = s
			}
			s.again = s.again || len(c.losses) > 0 && s.At < c.losses[len(c.losses)-1].At
			s.last = r.At
		case OK:
			s := c.sends[k]
			if s == nil {
				c.violate("phantom", "an answer to %s/%d, which was never sent", r.Sender, r.Seq)
				continue
			}
			s.done = r.At
			c.accept(s, r)
		case Unknown:
			if s := c.sends[k]; s != nil {
				s.done = r.At
			}
		case Fail:
			c.refused(c.sends[k], r)
		case Recall:
			if s := c.byID[r.ID]; s != nil {
				s.recalled = true
			}
		case Lost:
			c.losses = append(c.losses, r)
		case Stall:
			c.stalls = append(c.stalls, r)
		case TagAsk, TagAnswer, TagRest: // see tags
		case Online, Off, Deliver, Peek, Ack, Gap, Crash, Forget, Stored, Live:
			c.byDev[r.Device] = append(c.byDev[r.Device], r)
		}
	}
	for _, r := range records { // those nobody was told the id of
		if r.Kind != Deliver && r.Kind != Peek || c.byID[r.ID] != nil {
			continue
		}
		// A sender that got an answer may have been answered twice, if the store lost the first.
		if s := byBody[r.Body]; s != nil && (!s.ok || s.again) {
			c.name(s, r.ID)
		}
	}
}

// accept notes an answer.
func (c *checker) accept(s *sent, r Record) {
	if n := len(s.accepted); n > 0 && s.accepted[n-1].id != r.ID && !c.lostSince(s.Product, s.At, r.At) {
		c.violate("idempotency", "%s/%d has the ids %s and %s", r.Sender, r.Seq, s.accepted[n-1].id, r.ID)
	}
	s.ok, s.id = true, r.ID
	if !slices.ContainsFunc(s.accepted, func(a accepted) bool { return a.id == r.ID }) {
		from := s.last
		if len(s.accepted) == 0 {
			from = s.At
		}
		s.accepted = append(s.accepted, accepted{r.ID, from, r.At})
	}
	c.name(s, r.ID)
}

func (c *checker) name(s *sent, id string) {
	if other := c.byID[id]; other != nil && other != s {
		c.violate("ids", "%s names both %s/%d and %s/%d", id, other.Sender, other.Seq, s.Sender, s.Seq)
		return
	}
	c.byID[id] = s
	if s.id == "" {
		s.id = id
	}
}

// keyReused is the code with which a key is refused that came with another request before.
const keyReused = "idempotency_key_reused"

// refused judges that a key was not refused which no other request of the product had.
func (c *checker) refused(s *sent, r Record) {
	if s == nil || r.Code != keyReused {
		return
	}
	for _, o := range c.order {
		if o != s && o.Product == s.Product && o.Key == s.Key {
			return
		}
	}
	c.violate("idempotency", "%s/%d was refused for its key, which its product had not used before", s.Sender, s.Seq)
}

// keys judges that one idempotency key made one message.
func (c *checker) keys() {
	type key struct{ product, key string }
	first := make(map[key]*sent)
	for _, s := range c.order {
		if s.Key == "" || s.id == "" {
			continue
		}
		k := key{s.Product, s.Key}
		if o := first[k]; o != nil && o.id != s.id && !c.lostSince(s.Product, o.At, s.last) {
			c.violate("idempotency", "the key of %s/%d and %s/%d made two messages", o.Sender, o.Seq, s.Sender, s.Seq)
		}
		first[k] = s
	}
}

// noteCollapsed finds the messages whose place a newer one took, or may have taken: of two that were under way at the same
// time nobody knows which came to lie behind the other. Only one that is for the same takes another's place.
func (c *checker) noteCollapsed() {
	type key struct{ product, collapse, audience string }
	latest := make(map[key][2]*sent) // the two whose outcome was known last
	for _, s := range c.order {
		if s.Collapse == "" || !s.Persistent {
			continue
		}
		s.done = max(s.done, s.last)
		k := key{s.Product, s.Collapse, s.audience()}
		l := latest[k]
		switch {
		case l[0] == nil || s.done > l[0].done:
			l[0], l[1] = s, l[0]
		case l[1] == nil || s.done > l[1].done:
			l[1] = s
		}
		latest[k] = l
	}
	for _, s := range c.order {
		l := latest[key{s.Product, s.Collapse, s.audience()}]
		other := l[0]
		if other == s {
			other = l[1]
		}
		s.collapsed = s.Collapse != "" && other != nil && other.done >= s.At
	}
}

// lostSince reports whether the store lost something of a product between two moments.
func (c *checker) lostSince(product string, from, to time.Duration) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool {
		return (l.Product == "" || l.Product == product) && l.At >= from && l.At <= to
	})
}

// losesSlot reports whether a loss took something of one user's slot.
func losesSlot(l *Record, d Device, slot int) bool {
	switch {
	case l.Product == "" && len(l.To) == 0 && !l.Everyone:
		return true
	case l.Product != d.Product:
		return false
	case slot == 1:
		return l.Everyone
	}
	return slices.Contains(l.To, d.User)
}

// calm reports whether nothing kept a device from taking what came between two moments.
func (c *checker) calm(d Device, from, to time.Duration) bool {
	return !slices.ContainsFunc(c.stalls, func(s Record) bool {
		return (s.Device == Device{} || s.Device == d) && s.Since <= to && s.At >= from
	})
}

func (s *sent) isFor(d Device) bool {
	return s.Product == d.Product &&
		(s.Everyone || slices.Contains(s.To, d.User) || slices.Contains(s.Devices, d))
}

// audience tells messages apart of which none takes another's place. Those to users, and those to single devices, may be for some
// of the same.
func (s *sent) audience() string {
	switch {
	case s.Having != nil:
		return fmt.Sprintf("tags %q %q %q", s.Having.All, s.Having.Any, s.Having.Not)
	case s.Everyone:
		return "everyone"
	case len(s.Devices) > 0:
		return "devices"
	}
	return "users"
}

// isOrdered reports whether something is promised about the message's place among others.
func (c *checker) isOrdered(s *sent) bool { return s.Persistent && (s.TTL == 0 || !c.run.ClockSteps) }

// slot is where the message lies.
func (s *sent) slot() int {
	if s.Everyone {
		return 1
	}
	return 0
}
