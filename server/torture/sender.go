package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"carillon/server/history"
)

// sender is one publisher. It sends its next message, or batch of messages, when it knows the outcome of the last.
type sender struct {
	w     *world
	name  string
	rng   *rand.Rand
	http  *http.Client
	batch bool // it sends what has come due of the rate, in batches; the others send message by message
	seq   int  // of its last message
}

// Of a hundred messages so many are not persistent, and so many of the accepted requests are sent once more.
const (
	notKept   = 15
	sentAgain = 5
)

// Of a thousand messages so many are to everyone. In batches they are few: each costs as much as all shards and devices.
const (
	toEveryone        = 20
	toEveryoneInBatch = 2
)

// most is how many messages a batch has at most, as openapi.yaml says.
const most = 500

// batchPause is about how long a sender of batches waits between two.
const batchPause = 400 * time.Millisecond

// run sends until ctx is done, and goes on with the last messages until finish is.
func (s *sender) run(ctx, finish context.Context) {
	for ctx.Err() == nil {
		if s.batch {
			s.settle(finish, s.items(s.w.meter.take(s.w.now(), most), toEveryoneInBatch))
			sleep(ctx, between(s.rng, 0, 2*batchPause))
			continue
		}
		s.w.meter.add(1)
		s.settle(finish, s.items(1, toEveryone))
		sleep(ctx, between(s.rng, 0, 2*s.w.cfg.Pause))
	}
	s.http.CloseIdleConnections()
}

// item is one message on its way.
type item struct {
	invoke history.Record
	known  bool // it was accepted
}

// items returns the sender's next n messages, so many of a thousand to everyone.
func (s *sender) items(n, everyone int) []*item {
	items := make([]*item, 0, n)
	for range n {
		s.seq++
		r := history.Record{Kind: history.Invoke, Sender: s.name, Seq: s.seq, Body: fmt.Sprintf(`"%s/%d"`, s.name, s.seq)}
		switch k := s.rng.IntN(1000); {
		case k < everyone:
			r.Everyone, r.Persistent = true, true
		default:
			r.To = []string{s.w.users[s.rng.IntN(len(s.w.users))]}
			r.Persistent = k >= everyone+10*notKept
		}
		if r.Persistent {
			r.Key = fmt.Sprintf("%s-%d", s.name, s.seq)
		}
		items = append(items, &item{invoke: r})
	}
	return items
}

// publication is the schema PublishRequest, and BatchItem if it has a key.
type publication struct {
	To struct {
		Users    []string `json:"users,omitempty"`
		Everyone bool     `json:"everyone,omitempty"`
	} `json:"to"`
	Message struct {
		Body       string `json:"body"`
		Persistent bool   `json:"persistent"`
	} `json:"message"`
	Key string `json:"idempotency_key,omitempty"`
}

func (it *item) publication() (p publication) {
	p.To.Users, p.To.Everyone = it.invoke.To, it.invoke.Everyone
	p.Message.Body, p.Message.Persistent = fmt.Sprintf("%s/%d", it.invoke.Sender, it.invoke.Seq), it.invoke.Persistent
	return p
}

// answer is what became of one message; status 0: nobody said.
type answer struct {
	status   int
	id, code string
}

// settle sends messages until the outcome of each persistent one is known: the same key goes to whichever center comes next. The others
// are sent once.
func (s *sender) settle(ctx context.Context, items []*item) {
	for rest := items; len(rest) > 0 && ctx.Err() == nil; {
		for _, it := range rest {
			s.w.sent.Add(it.invoke)
		}
		rest = s.learn(ctx, rest, s.post(ctx, rest))
	}
	for _, it := range items {
		if it.invoke.Persistent && !it.known {
			s.w.breach("recovery", "nobody told the outcome of %s/%d after everything was healed", s.name, it.invoke.Seq)
		}
	}
}

// learn notes what became of messages, and returns those to send again: of which it is not known, and now and then those that were accepted.
func (s *sender) learn(ctx context.Context, items []*item, answers []answer) (rest []*item) {
	again, pause := s.rng.IntN(100) < sentAgain, false
	for i, it := range items {
		a, r := answers[i], history.Record{Sender: s.name, Seq: it.invoke.Seq}
		switch kept := it.invoke.Persistent; {
		case kept && (a.status == http.StatusCreated || a.status == http.StatusOK), a.status == http.StatusAccepted && a.id != "":
			r.Kind, r.ID = history.OK, a.id
			if kept && again {
				rest = append(rest, it)
				s.w.repeated.Add(1)
			}
			s.accepted(it)
		case !kept || a.status == 0 || a.status >= 500 || a.status == http.StatusTooManyRequests:
			r.Kind = history.Unknown
			if kept && !it.known {
				rest, pause = append(rest, it), true
			}
		default:
			r.Kind, r.Code = history.Fail, a.code
			it.known = true // though not as it should be
			s.w.breach("refused", "%s/%d was refused with %d %s", s.name, it.invoke.Seq, a.status, a.code)
		}
		s.w.sent.Add(r)
	}
	if pause {
		sleep(ctx, between(s.rng, 10*time.Millisecond, 100*time.Millisecond))
	}
	return rest
}

// accepted counts a message once.
func (s *sender) accepted(it *item) {
	switch {
	case !it.invoke.Persistent:
		s.w.live.Add(1)
	case it.known:
	default:
		it.known = true
		s.w.accepted.Add(1)
		if it.invoke.Everyone {
			s.w.everyone.Add(1)
		} else {
			s.w.due[it.invoke.To[0]].Add(1)
		}
	}
}

// post sends messages in one request, and returns an answer to each.
func (s *sender) post(ctx context.Context, items []*item) []answer {
	if s.batch {
		return s.postBatch(ctx, items)
	}
	var a struct {
		ID   string `json:"id"`
		Code string `json:"code"`
	}
	it := items[0]
	status := s.w.request(ctx, s.http, http.MethodPost, s.w.center(s.rng)+"/v1/messages", s.w.access.APIKey, it.invoke.Key, it.publication(), &a)
	return []answer{{status, a.ID, a.Code}}
}

func (s *sender) postBatch(ctx context.Context, items []*item) []answer {
	var in struct {
		Messages []publication `json:"messages"`
	}
	for _, it := range items {
		p := it.publication()
		p.Key = it.invoke.Key
		in.Messages = append(in.Messages, p)
	}
	var out struct {
		Code    string `json:"code"` // of a refusal of the whole
		Results []struct {
			Status  int                   `json:"status"`
			Message struct{ ID string }   `json:"message"`
			Problem struct{ Code string } `json:"problem"`
		} `json:"results"`
	}
	status := s.w.request(ctx, s.http, http.MethodPost, s.w.center(s.rng)+"/v1/messages/batch", s.w.access.APIKey, "", in, &out)
	s.w.batches.Add(1)
	answers := make([]answer, len(items))
	for i := range answers {
		switch {
		case status != http.StatusOK:
			answers[i] = answer{status: status, code: out.Code}
		case len(out.Results) == len(items):
			r := &out.Results[i]
			answers[i] = answer{r.Status, r.Message.ID, r.Problem.Code}
		}
	}
	if status == http.StatusOK && len(out.Results) != len(items) {
		s.w.breach("batch", "%d messages got %d results", len(items), len(out.Results))
	}
	return answers
}
