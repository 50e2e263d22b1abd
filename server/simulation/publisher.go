package simulation

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"carillon/server/history"
)

// sender is one thread of a product's server: it sends its next message when it knows what became of the last, or gave up.
type sender struct {
	w    *world
	p    *product
	name string
	lane *lane
	tags *lane        // which audiences are by tags
	busy atomic.Int32 // goroutines that work for it

	// The driver's, or the goroutine's that works for it.
	seq  int
	sent []*outgoing
}

// outgoing is one message that a sender wants to be sent.
type outgoing struct {
	rec history.Record // as it is noted before each attempt
	req map[string]any
	at  time.Duration
	ids []string
}

// compose makes up the next message.
func (s *sender) compose() *outgoing {
	l, w := s.lane, s.w
	s.seq++
	o := &outgoing{at: w.sched.now()}
	o.rec = history.Record{
		Kind: history.Invoke, Product: string(s.p.id), Sender: s.name, Seq: s.seq, Persistent: l.IntN(4) > 0,
		Body: fmt.Sprintf("%q", fmt.Sprintf("%s/%d", s.name, s.seq)),
	}
	msg := map[string]any{"body": json.RawMessage(o.rec.Body)}
	to := map[string]any{}
	switch n := l.IntN(10); {
	case n < 3:
		o.rec.Everyone = true
		if o.rec.Having = s.having(); o.rec.Having != nil {
			to["tags"] = o.rec.Having
			to["membership"] = "at_delivery" // what the judge knows of tags is what a device has when it reads
			break
		}
		to["everyone"] = true
	case n < 5 && len(w.devices) > 0:
		var ds []map[string]string
		for _, i := range l.Perm(len(w.devices))[:1+l.IntN(2)] {
			if d := w.devices[i]; d.p == s.p {
				o.rec.Devices = append(o.rec.Devices, d.id)
				ds = append(ds, map[string]string{"user": d.id.User, "device": d.id.Device})
			}
		}
		if len(ds) > 0 {
			to["devices"] = ds
			break
		}
		fallthrough
	default:
		var us []string
		for _, i := range l.Perm(w.opt.users)[:1+l.IntN(2)] {
			us = append(us, userNames[i])
		}
		o.rec.To = us
		to["users"] = us
	}
	if !o.rec.Persistent {
		msg["persistent"] = false
	} else {
		if l.IntN(6) == 0 {
			o.rec.Collapse = fmt.Sprintf("c%d", l.IntN(3))
			msg["collapse_key"] = o.rec.Collapse
		}
		if l.IntN(8) == 0 {
			ttl := 1 + l.IntN(6)
			o.rec.TTL = time.Duration(ttl) * time.Second
			msg["ttl_seconds"] = ttl
		}
	}
	if l.IntN(3) > 0 {
		s.p.keys++
		o.rec.Key = fmt.Sprintf("k%d", s.p.keys)
	}
	o.req = map[string]any{"to": to, "message": msg}
	return o
}

// having returns the tags of an audience, nil for everyone. It draws apart, so that worlds without tags are what they are.
func (s *sender) having() *history.Having {
	if !s.w.opt.tags || s.tags.IntN(3) == 0 {
		return nil
	}
	h := &history.Having{}
	for h.All == nil && h.Any == nil && h.Not == nil {
		for _, t := range allTags() {
			switch s.tags.IntN(16) {
			case 0:
				h.All = append(h.All, t)
			case 1, 2:
				h.Any = append(h.Any, t)
			case 3:
				h.Not = append(h.Not, t)
			}
		}
	}
	return h
}

// attempt sends it once and reports whether the outcome is known.
func (s *sender) attempt(l *lane, o *outgoing) bool {
	w := s.w
	w.note(o.rec)
	body, err := json.Marshal(o.req)
	if err != nil {
		panic(err) // strings and numbers
	}
	a, err := w.call(l, s.p, http.MethodPost, "/v1/messages", o.rec.Key, body)
	if err != nil {
		s.unknown(o)
		return false
	}
	return s.outcome(o, a.status, a.body.Bytes())
}

func (s *sender) unknown(o *outgoing) {
	s.w.note(history.Record{Kind: history.Unknown, Sender: o.rec.Sender, Seq: o.rec.Seq})
}

func (s *sender) outcome(o *outgoing, status int, body []byte) bool {
	var got struct {
		ID   string
		Code string
	}
	_ = json.Unmarshal(body, &got)
	switch {
	case status == http.StatusCreated || status == http.StatusAccepted:
		s.w.note(history.Record{Kind: history.OK, Sender: o.rec.Sender, Seq: o.rec.Seq, ID: got.ID})
		o.ids = append(o.ids, got.ID)
		return true
	case status >= 500 || status == http.StatusTooManyRequests:
		s.unknown(o)
		return false
	}
	s.w.note(history.Record{Kind: history.Fail, Sender: o.rec.Sender, Seq: o.rec.Seq, Code: got.Code})
	return true
}

// work runs f in a goroutine of the sender.
func (s *sender) work(f func()) {
	s.busy.Add(1)
	go func() {
		defer s.busy.Add(-1)
		f()
	}()
}

// wait lets virtual time pass in a goroutine.
func wait(l *lane, d time.Duration) {
	over := make(chan struct{})
	l.after(d, func() { close(over) })
	<-over
}

// send sends it until its outcome is known, where a key makes that safe, or until it has had enough.
func (s *sender) send(o *outgoing) {
	s.sent = append(s.sent, o)
	s.work(func() {
		for n := 0; !s.attempt(s.lane, o) && o.rec.Key != "" && n < 12; n++ {
			wait(s.lane, s.lane.between(50*time.Millisecond, time.Second))
		}
	})
}

// flood sends many messages that are not persistent, as fast as they are answered.
func (s *sender) flood() {
	var os []*outgoing
	for range 8 + s.lane.IntN(20) {
		o := s.compose()
		o.rec.Persistent, o.rec.Key, o.rec.Collapse, o.rec.TTL = false, "", "", 0
		if s.lane.IntN(3) > 0 {
			o.rec.Everyone, o.rec.Having, o.rec.To, o.rec.Devices = true, nil, nil, nil
			o.req["to"] = map[string]any{"everyone": true}
		}
		o.req["message"] = map[string]any{"body": json.RawMessage(o.rec.Body), "persistent": false}
		os = append(os, o)
	}
	s.work(func() {
		for _, o := range os {
			s.attempt(s.lane, o)
			wait(s.lane, s.lane.between(time.Millisecond, 30*time.Millisecond))
		}
	})
}

// markers send something to everybody when all is well: whoever is connected and does not get it was forgotten.
func (w *world) markers() {
	for _, p := range w.products {
		for i, s := range p.senders {
			if s.busy.Load() > 0 {
				continue
			}
			var os []*outgoing
			for u := i; u < w.opt.users; u += len(p.senders) {
				o := s.compose()
				o.rec.Having = nil
				o.rec.Persistent, o.rec.Everyone, o.rec.Devices, o.rec.Collapse, o.rec.TTL = true, false, nil, "", 0
				o.rec.To = []string{userNames[u]}
				o.req = map[string]any{
					"to": map[string]any{"users": o.rec.To}, "message": map[string]any{"body": json.RawMessage(o.rec.Body)},
				}
				os = append(os, o)
			}
			s.work(func() {
				for _, o := range os {
					s.attempt(s.lane, o)
				}
			})
		}
	}
}

// burst sends the same request several times at once.
func (s *sender) burst(o *outgoing, n int) {
	if o.rec.Key == "" {
		s.p.keys++
		o.rec.Key = fmt.Sprintf("k%d", s.p.keys)
	}
	s.sent = append(s.sent, o)
	for i := range n {
		l := s.w.sched.lane(fmt.Sprintf("burst/%s/%d/%d", s.name, s.seq, i))
		s.busy.Add(1)
		l.after(l.between(0, 20*time.Millisecond), func() {
			s.work(func() { s.attempt(l, o) })
			s.busy.Add(-1)
		})
	}
}

// repeat sends something again that was sent before under a key.
func (s *sender) repeat() bool {
	for n := len(s.sent) - 1; n >= 0 && n > len(s.sent)-12; n-- {
		o := s.sent[n]
		// A key is remembered for an hour; a repetition after a jump would ask for more.
		if o.rec.Key != "" && len(o.ids) > 0 && o.at > s.w.jumped && s.lane.IntN(3) == 0 {
			s.work(func() { s.attempt(s.lane, o) })
			return true
		}
	}
	return false
}

// batch sends several messages in one request. Each item has a name of its own as a sender: what becomes of one says
// nothing about the order of the others.
func (s *sender) batch(n int) {
	var items []*outgoing
	var reqs []map[string]any
	for i := range n {
		o := s.compose()
		o.rec.Sender = fmt.Sprintf("%s/b%d", s.name, i)
		if o.rec.Key != "" {
			o.req["idempotency_key"] = o.rec.Key
		}
		items, reqs = append(items, o), append(reqs, o.req)
	}
	body, err := json.Marshal(map[string]any{"messages": reqs})
	if err != nil {
		panic(err)
	}
	s.work(func() {
		for _, o := range items {
			s.w.note(o.rec)
		}
		a, err := s.w.call(s.lane, s.p, http.MethodPost, "/v1/messages/batch", "", body)
		var got struct {
			Results []struct {
				Status  int
				Message json.RawMessage
				Problem json.RawMessage
			}
		}
		if err == nil {
			_ = json.Unmarshal(a.body.Bytes(), &got)
		}
		for i, o := range items {
			if err != nil || a.status != http.StatusOK || i >= len(got.Results) {
				s.unknown(o)
				continue
			}
			r := got.Results[i]
			b := r.Message
			if b == nil {
				b = r.Problem
			}
			s.outcome(o, r.Status, b)
		}
	})
}

// recall takes back something that was accepted.
func (s *sender) recall() bool {
	for n := len(s.sent) - 1; n >= 0 && n > len(s.sent)-8; n-- {
		o := s.sent[n]
		if !o.rec.Persistent || len(o.ids) == 0 || s.lane.IntN(2) == 0 {
			continue
		}
		id := o.ids[len(o.ids)-1]
		s.work(func() {
			s.w.note(history.Record{Kind: history.Recall, Sender: s.name, ID: id})
			for range 4 {
				a, err := s.w.call(s.lane, s.p, http.MethodDelete, "/v1/messages/"+id, "", nil)
				if err == nil && a.status < 500 {
					return
				}
				wait(s.lane, s.lane.between(50*time.Millisecond, time.Second))
			}
		})
		return true
	}
	return false
}
