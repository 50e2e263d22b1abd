package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"carillon/server/history"
)

// sender is one publisher. It sends its next message when it knows the outcome of the last.
type sender struct {
	w    *world
	name string
	rng  *rand.Rand
	http *http.Client
}

// Of a hundred messages so many are to everyone, and so many are not persistent; so many of the accepted are sent once more.
const (
	toEveryone = 2
	notKept    = 15
	sentAgain  = 5
)

// run sends until ctx is done, and goes on with the last message until finish is.
func (s *sender) run(ctx, finish context.Context) {
	for seq := 1; ctx.Err() == nil; seq++ {
		to := s.w.users[s.rng.IntN(len(s.w.users))]
		switch n := s.rng.IntN(100); {
		case n < toEveryone:
			s.send(finish, seq, "")
		case n < toEveryone+notKept:
			s.sendLive(finish, seq, to)
		default:
			s.send(finish, seq, to)
		}
		sleep(ctx, between(s.rng, 0, 2*s.w.cfg.Pause))
	}
	s.http.CloseIdleConnections()
}

// answer is what we read of an answer.
type answer struct {
	ID   string `json:"id"`
	Code string `json:"code"`
}

func (s *sender) post(ctx context.Context, key string, in any) (int, answer) {
	var a answer
	status := s.w.request(ctx, s.http, http.MethodPost, s.w.center(s.rng)+"/v1/messages", s.w.access.APIKey, key, in, &a)
	return status, a
}

// send sends a persistent message to a user, or to everyone, until its outcome is known: the same key goes to whichever center comes next.
func (s *sender) send(ctx context.Context, seq int, to string) {
	body, key := fmt.Sprintf("%s/%d", s.name, seq), fmt.Sprintf("%s-%d", s.name, seq)
	rec := history.Record{Kind: history.Invoke, Sender: s.name, Seq: seq, Key: key, Body: fmt.Sprintf("%q", body), Persistent: true}
	audience := map[string]any{"everyone": true}
	if rec.Everyone = to == ""; !rec.Everyone {
		rec.To = []string{to}
		audience = map[string]any{"users": rec.To}
	}
	req := map[string]any{"to": audience, "message": map[string]any{"body": body}}
	known := false
	for more := true; more && ctx.Err() == nil; {
		s.w.sent.Add(rec)
		status, a := s.post(ctx, key, req)
		switch {
		case status == http.StatusCreated || status == http.StatusOK || status == http.StatusAccepted && a.ID != "":
			s.w.sent.Add(history.Record{Kind: history.OK, Sender: s.name, Seq: seq, ID: a.ID})
			if more = s.rng.IntN(100) < sentAgain; more {
				s.w.repeated.Add(1)
			}
			if known {
				continue
			}
			known = true
			s.w.accepted.Add(1)
			if rec.Everyone {
				s.w.everyone.Add(1)
			} else {
				s.w.due[to].Add(1)
			}
		case status == 0 || status >= 500 || status == http.StatusTooManyRequests:
			s.w.sent.Add(history.Record{Kind: history.Unknown, Sender: s.name, Seq: seq})
			more = !known
			sleep(ctx, between(s.rng, 10*time.Millisecond, 100*time.Millisecond))
		default:
			s.w.sent.Add(history.Record{Kind: history.Fail, Sender: s.name, Seq: seq, Code: a.Code})
			s.w.breach("refused", "%s/%d was refused with %d %s", s.name, seq, status, a.Code)
			return
		}
	}
	if !known {
		s.w.breach("recovery", "nobody told the outcome of %s/%d after everything was healed", s.name, seq)
	}
}

// sendLive sends a message to those who are online now, once.
func (s *sender) sendLive(ctx context.Context, seq int, to string) {
	body := fmt.Sprintf("%s/%d", s.name, seq)
	s.w.sent.Add(history.Record{Kind: history.Invoke, Sender: s.name, Seq: seq, To: []string{to}, Body: fmt.Sprintf("%q", body)})
	status, a := s.post(ctx, "", map[string]any{
		"to": map[string]any{"users": []string{to}}, "message": map[string]any{"body": body, "persistent": false},
	})
	if status != http.StatusAccepted {
		s.w.sent.Add(history.Record{Kind: history.Unknown, Sender: s.name, Seq: seq})
		return
	}
	s.w.sent.Add(history.Record{Kind: history.OK, Sender: s.name, Seq: seq, ID: a.ID})
	s.w.live.Add(1)
}
