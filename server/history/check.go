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
	// Remembers is how many ids a client knows a repeat by; 0: all. What a device handled before that many others may come again to its application
	// once it was told that the slot's state was lost.
	Remembers int
	// ClockSteps says that the store's clock was set during the run: what had expired may be live again.
	ClockSteps bool

	// How late things may come while nothing keeps a device from taking them; 0: not judged.
	LiveWithin   time.Duration // a message that is not persistent, after it was sent
	KickWithin   time.Duration // anything at a session, after another of its device was welcomed or it had to go
	ExpireWithin time.Duration // a message, after it expired
}

// sent is one message that a sender wanted to be sent. There are millions.
type sent struct {
	At         time.Duration // when it was sent first
	Product    string
	Sender     string
	Seq        int
	Key        string
	To         []string
	Devices    []Device
	Having     *Having
	Body       string
	Collapse   string
	TTL        time.Duration
	Everyone   bool
	Persistent bool

	ok        bool
	recalled  bool
	collapsed bool          // a newer one took its place, or may have
	repeated  bool          // sent more than once
	again     bool          // sent again after the store lost something: it may lie behind what its sender sent later
	last      time.Duration // when it was sent last
	done      time.Duration // when its last outcome was known
	id        string        // the last that it was accepted under, or was delivered under to somebody
	accepted  []accepted    // under each id that it got: more than one only if the store lost the first
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
	id       int32         // an index of checker.ids
	from, at time.Duration // it was stored between these
}

type sendKey struct {
	sender string
	seq    int
}

// named is an id of a message, and which one it names; nil: none that is known.
type named struct {
	id   string
	sent *sent
}

// event is what a device did or saw. There are more of them than of anything else.
type event struct {
	at      time.Duration
	session uint64
	pos     uint64 // of Live: how many
	id      int32  // an index of checker.ids, or none
	slot    int16
	kind    uint8 // an index of kinds
	flags   uint8
}

// none is no id.
const none = int32(-1)

const (
	reset     = 1 << iota // of a gap
	otherBody             // than that of the message of this id
	begins                // two for each slot, from here on: FromStart and FromHead
)

func (e *event) is(k Kind) bool { return kinds[e.kind] == k }

// starts reports where a session begins in a slot: FromStart, FromHead or neither.
func (e *event) starts(slot int) (start, head bool) {
	return e.flags&(begins<<(2*slot)) != 0, e.flags&(begins<<(2*slot+1)) != 0
}

type checker struct {
	run     Run
	sends   map[sendKey]*sent // while records are indexed
	order   []*sent           // by first sending
	ids     []named
	numbers map[string]int32   // the index in ids of each id
	byDev   map[Device][]event // what a device did and saw, in its order
	refused []refusal
	losses  []Record
	stalls  []Record
	ends    []time.Duration
	asked   map[tagSet][]*tagged // tags, in the order in which they were asked for
	sets    map[Device][]tagSet  // those of asked by whose they are
	answers int                  // how many of tags there were
	tasks   map[string]*taskSeen // by id
	end     time.Duration        // of the last record
	out     []Violation
}

// Check judges the records of a run that has come to rest and returns all violations it finds, none if the promise held.
func Check(run Run, records []Record) []Violation { return CheckAll(run, Of(records)) }

// CheckAll is Check of a history, which it goes through three times.
func CheckAll(run Run, history Seq) []Violation {
	c := &checker{
		run: run, sends: make(map[sendKey]*sent), numbers: make(map[string]int32), byDev: make(map[Device][]event),
		asked: make(map[tagSet][]*tagged), sets: make(map[Device][]tagSet), tasks: make(map[string]*taskSeen),
	}
	c.noteFaults(history)
	rests := c.index(history)
	c.sends = nil
	c.noteDevices(history)
	c.numbers = nil
	c.keys()
	c.noteCollapsed()
	c.watchAll()
	c.lost()
	for _, group := range c.groups() {
		c.agree(group)
		c.positions(group)
	}
	for i := range rests {
		c.tagsAtRest(&rests[i])
	}
	c.judgeTasks()
	slices.SortFunc(c.out, func(a, b Violation) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Detail, b.Detail)) })
	return c.out
}

func (c *checker) violate(rule, format string, args ...any) {
	c.out = append(c.out, Violation{rule, fmt.Sprintf(format, args...)})
}

// noteFaults notes what explains things that came before and after it.
func (c *checker) noteFaults(history Seq) {
	for r := range history {
		switch r.Kind {
		case Lost:
			c.losses = append(c.losses, *r)
		case Stall:
			c.stalls = append(c.stalls, *r)
		case Ended:
			c.ends = append(c.ends, r.At)
		}
		c.end = r.At
	}
}

// index notes what was sent and what became of it, and of sets of tags, of which it returns what they are at rest.
func (c *checker) index(history Seq) (rests []Record) {
	turns := make(map[tagTurn]*tagged)
	for r := range history {
		k := sendKey{r.Sender, r.Seq}
		switch r.Kind {
		case Invoke:
			c.invoke(k, r)
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
			if s := c.sends[k]; s != nil && r.Code == keyReused {
				c.refused = append(c.refused, refusal{s, len(c.order)})
			}
		case Recall:
			if i, ok := c.numbers[r.ID]; ok && c.ids[i].sent != nil {
				c.ids[i].sent.recalled = true
			}
		case TagAsk, TagAnswer:
			c.noteTags(turns, r)
		case TagRest:
			rests = append(rests, *r)
		case MoveAsk, MoveAnswer, Held, Told:
			c.noteTask(r)
		}
	}
	return rests
}

// invoke notes that a message is sent; a repetition under the same key is the same message.
func (c *checker) invoke(k sendKey, r *Record) {
	s := c.sends[k]
	if s != nil {
		s.repeated, s.last = true, r.At
		c.noteAgain(s, r.At)
		return
	}
	s = &sent{
		At: r.At, Product: r.Product, Sender: r.Sender, Seq: r.Seq, Key: r.Key, To: r.To, Devices: r.Devices, Having: r.Having, Body: r.Body,
		Collapse: r.Collapse, TTL: r.TTL, Everyone: r.Everyone, Persistent: r.Persistent, last: r.At,
	}
	c.sends[k] = s
	c.order = append(c.order, s)
}

// number returns the index of an id.
func (c *checker) number(id string) int32 {
	i, ok := c.numbers[id]
	if !ok {
		i = int32(len(c.ids))
		c.numbers[id], c.ids = i, append(c.ids, named{id: id})
	}
	return i
}

// noteDevices sorts out what devices did and saw, and learns the ids of messages whose sender never got an answer from their deliveries.
func (c *checker) noteDevices(history Seq) {
	unanswered := c.unanswered()
	for r := range history {
		e := event{at: r.At, session: r.Session, pos: r.Pos, id: none, slot: int16(r.Slot), kind: numberOf(r.Kind)}
		switch r.Kind {
		case Deliver, Peek:
			e.id = c.number(r.ID)
			if s := unanswered[r.Body]; c.ids[e.id].sent == nil && s != nil && s.mayHaveAnotherID() {
				c.name(s, e.id)
			}
			if s := c.ids[e.id].sent; s == nil || s.Body != r.Body {
				e.flags |= otherBody
			}
		case Crash:
			e.id = c.number(r.ID)
		case Online:
			for slot, from := range r.Begins {
				switch from {
				case FromStart:
					e.flags |= begins << (2 * slot)
				case FromHead:
					e.flags |= begins << (2*slot + 1)
				}
			}
		case Gap:
			if r.Reset {
				e.flags |= reset
			}
		case Live:
			e.pos = uint64(r.Count)
		case Off, Ack, Forget, Stored:
		default:
			continue
		}
		c.byDev[r.Device] = append(c.byDev[r.Device], e)
	}
}

// mayHaveAnotherID reports whether a delivery may be of the message under an id that its sender was not told: one that got an answer may
// have been answered twice, if the store lost the first.
func (s *sent) mayHaveAnotherID() bool { return !s.ok || s.again }

// unanswered returns the messages that may have another id, by their bodies; of several with one body the last.
func (c *checker) unanswered() map[string]*sent {
	byBody := make(map[string]*sent)
	for _, s := range c.order {
		if byBody[s.Body] != nil || s.mayHaveAnotherID() {
			byBody[s.Body] = s
		}
	}
	return byBody
}

// noteAgain notes that a message was sent again after the store lost something, if it was: what was sent before that may be carried out after it.
func (c *checker) noteAgain(s *sent, at time.Duration) {
	s.again = s.again || s.repeated && slices.ContainsFunc(c.losses, func(l Record) bool { return l.At > s.At && l.from() <= at })
}

// accept notes an answer.
func (c *checker) accept(s *sent, r *Record) {
	c.noteAgain(s, r.At)
	id := c.number(r.ID)
	if n := len(s.accepted); n > 0 && s.accepted[n-1].id != id && !c.lostSince(s.Product, s.At, r.At) {
		c.violate("idempotency", "%s/%d has the ids %s and %s", r.Sender, r.Seq, c.ids[s.accepted[n-1].id].id, r.ID)
	}
	s.ok, s.id = true, c.ids[id].id
	if !slices.ContainsFunc(s.accepted, func(a accepted) bool { return a.id == id }) {
		from := s.last
		if len(s.accepted) == 0 {
			from = s.At
		}
		s.accepted = append(s.accepted, accepted{id, from, r.At})
	}
	c.name(s, id)
}

// name notes that an id is that of a message.
func (c *checker) name(s *sent, id int32) {
	n := &c.ids[id]
	if n.sent != nil && n.sent != s {
		c.violate("ids", "%s names both %s/%d and %s/%d", n.id, n.sent.Sender, n.sent.Seq, s.Sender, s.Seq)
		return
	}
	n.sent = s
	if s.id == "" {
		s.id = n.id
	}
}

// keyReused is the code with which a key is refused that came with another request before.
const keyReused = "idempotency_key_reused"

// refusal is a message that was refused for its key, and how many of order had been sent by then.
type refusal struct {
	sent *sent
	n    int
}

// keys judges that one idempotency key made one message, and that a key was not refused which no other request of the product had.
func (c *checker) keys() {
	type key struct{ product, key string }
	used := make(map[key][]int) // of the keys that were refused: which of order had them
	for _, r := range c.refused {
		used[key{r.sent.Product, r.sent.Key}] = nil
	}
	first := make(map[key]*sent)
	for i, s := range c.order {
		k := key{s.Product, s.Key}
		if is, ok := used[k]; ok {
			used[k] = append(is, i)
		}
		if s.Key == "" || s.id == "" {
			continue
		}
		if o := first[k]; o != nil && o.id != s.id && !c.lostSince(s.Product, o.At, s.last) {
			c.violate("idempotency", "the key of %s/%d and %s/%d made two messages", o.Sender, o.Seq, s.Sender, s.Seq)
		}
		first[k] = s
	}
	for _, r := range c.refused {
		s := r.sent
		is := used[key{s.Product, s.Key}]
		// Of the first two who had it, one is another.
		if !slices.ContainsFunc(is[:min(2, len(is))], func(i int) bool { return i < r.n && c.order[i] != s }) {
			c.violate("idempotency", "%s/%d was refused for its key, which its product had not used before", s.Sender, s.Seq)
		}
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
		if s.Collapse == "" {
			continue
		}
		l := latest[key{s.Product, s.Collapse, s.audience()}]
		other := l[0]
		if other == s {
			other = l[1]
		}
		s.collapsed = other != nil && other.done >= s.At
	}
}

// from returns when a loss may have come first; the last moment is its At.
func (l *Record) from() time.Duration {
	if l.Throughout {
		return l.Since
	}
	return l.At
}

// lostSince reports whether the store lost something of a product between two moments.
func (c *checker) lostSince(product string, from, to time.Duration) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool {
		return (l.Product == "" || l.Product == product) && l.At >= from && l.from() <= to
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
		all, some := s.Having.All, s.Having.Any
		if len(some) == 1 { // one of one is all of one
			all, some = append(slices.Clone(all), some...), nil
			slices.Sort(all)
			all = slices.Compact(all)
		}
		return fmt.Sprintf("tags %q %q %q", all, some, s.Having.Not)
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
