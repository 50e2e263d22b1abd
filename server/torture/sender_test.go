package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/fleet"
	"carillon/server/history"
)

func TestMeter_OffersWhatIsDueAndForgetsWhatIsOld(t *testing.T) {
	m := meter{rate: 100, since: 10 * time.Second}
	for _, c := range []struct {
		at        time.Duration
		add, want int
	}{
		{10 * time.Second, 0, 0},
		{11 * time.Second, 0, 100},
		{12 * time.Second, 30, 70},    // others sent 30 of them
		{13 * time.Second, 150, 0},    // more than were due
		{14 * time.Second, 0, 50},     // which is not forgotten
		{24 * time.Second, 0, 500},    // 1 000 are due, and a batch is not larger
		{24 * time.Second, 0, 500},    //
		{124 * time.Second, 0, 500},   // 10 000 are due, and 2 000 are no older than backlog
		{124 * time.Second, 0, 500},   //
		{124 * time.Second, 500, 500}, //
		{124 * time.Second, 0, 0},     //
		{125 * time.Second, 0, 100},   //
	} {
		m.add(c.add)
		if got := m.take(c.at, most); got != c.want {
			t.Errorf("at %v: %d, want %d", c.at, got, c.want)
		}
	}
	if got := (&meter{}).take(time.Hour, most); got != 0 {
		t.Errorf("without a rate %d are due", got)
	}
}

// sending returns a sender of batches to one who answers.
func sending(t *testing.T, answer http.HandlerFunc) *sender {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	w := &world{
		cfg: Config{Say: func(string) {}}, fleet: &fleet.Fleet{}, balancer: strings.TrimPrefix(srv.URL, "http://"), users: []string{"alice"},
		due: map[string]*atomic.Int64{"alice": new(atomic.Int64)}, sent: history.NewLog(time.Now()),
	}
	return &sender{w: w, name: "s", rng: rand.New(rand.NewPCG(1, 2)), http: srv.Client(), batch: true}
}

// TestSender_EachItemOfABatchIsAnOperationOfItsOwn has a batch be accepted in part, lost as a whole, and accepted in part again.
func TestSender_EachItemOfABatchIsAnOperationOfItsOwn(t *testing.T) {
	var asked [][]string // the keys of each request
	s := sending(t, func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Messages []publication }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.URL.Path != "/v1/messages/batch" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		var keys, results []string
		for _, p := range in.Messages {
			keys = append(keys, p.Key)
			switch n := len(asked); {
			case !p.Message.Persistent:
				results = append(results, `{"status":202,"message":{"id":"live"}}`)
			case n == 0 && p.Key != "s-1", n == 2 && p.Key == "s-3":
				results = append(results, `{"status":503,"problem":{"code":"storage_failed"}}`)
			default:
				results = append(results, fmt.Sprintf(`{"status":201,"message":{"id":"id of %s"}}`, p.Key))
			}
		}
		asked = append(asked, keys)
		if len(asked) == 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"results":[%s]}`, strings.Join(results, ","))
	})
	keep := func(seq int) *item {
		return &item{invoke: history.Record{Kind: history.Invoke, Sender: "s", Seq: seq, Key: fmt.Sprintf("s-%d", seq), To: []string{"alice"}, Persistent: true}}
	}
	live := &item{invoke: history.Record{Kind: history.Invoke, Sender: "s", Seq: 4, To: []string{"alice"}}}
	s.settle(t.Context(), []*item{keep(1), keep(2), keep(3), live})
	if got, want := fmt.Sprint(asked), "[[s-1 s-2 s-3 ] [s-2 s-3] [s-2 s-3] [s-3]]"; got != want {
		t.Errorf("asked %v, want %v", got, want)
	}
	var got []string
	for _, r := range s.w.sent.Records() {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %d %s", r.Kind, r.Seq, r.ID)))
	}
	want := []string{
		"invoke 1", "invoke 2", "invoke 3", "invoke 4", "ok 1 id of s-1", "unknown 2", "unknown 3", "ok 4 live",
		"invoke 2", "invoke 3", "unknown 2", "unknown 3", "invoke 2", "invoke 3", "ok 2 id of s-2", "unknown 3", "invoke 3", "ok 3 id of s-3",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("noted\n%q, want\n%q", got, want)
	}
	if n, due, l := s.w.accepted.Load(), s.w.due["alice"].Load(), s.w.live.Load(); n != 3 || due != 3 || l != 1 {
		t.Errorf("counted %d accepted, %d due at alice, %d live", n, due, l)
	}
	if len(s.w.breaches) > 0 {
		t.Errorf("found %v", s.w.breaches)
	}
}

// TestSender_WhatWasAcceptedGoesAgainOnceAtMostIfNobodyAnswersThat has repeats never be answered.
func TestSender_WhatWasAcceptedGoesAgainOnceAtMostIfNobodyAnswersThat(t *testing.T) {
	times := make(map[string]int)
	s := sending(t, func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Messages []publication }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		key := in.Messages[0].Key
		if times[key]++; times[key] > 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"results":[{"status":201,"message":{"id":"1"}}]}`)
	})
	again := 0
	for i := range 100 {
		key := fmt.Sprint(i)
		s.settle(t.Context(), []*item{{invoke: history.Record{Kind: history.Invoke, Sender: "s", Seq: i, Key: key, To: []string{"alice"}, Persistent: true}}})
		if times[key] > 2 {
			t.Errorf("it went %d times", times[key])
		}
		again += times[key] - 1
	}
	if n := s.w.repeated.Load(); again == 0 || int(n) != again || s.w.accepted.Load() != 100 {
		t.Errorf("%d went again, counted as %d; %d accepted", again, n, s.w.accepted.Load())
	}
}

func TestSender_WhatItWasNotToldIsABreach(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want string
	}{
		"a result too many":   {`{"results":[{"status":201,"message":{"id":"1"}},{"status":201,"message":{"id":"2"}}]}`, "batch"},
		"results are missing": {`{"results":[]}`, "batch"},
		"one is refused":      {`{"results":[{"status":422,"problem":{"code":"no"}}]}`, "refused"},
		"no outcome":          {`{"results":[{"status":503,"problem":{"code":"storage_failed"}}]}`, "recovery"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		s := sending(t, func(w http.ResponseWriter, _ *http.Request) {
			if asked++; asked == 3 {
				cancel() // and so ends what would be repeated until it is answered
			}
			fmt.Fprint(w, c.body)
		})
		s.settle(ctx, []*item{{invoke: history.Record{Kind: history.Invoke, Sender: "s", Seq: 1, Key: "k", To: []string{"alice"}, Persistent: true}}})
		cancel()
		if got := rules(s.w.breaches); len(got) == 0 || got[0] != c.want {
			t.Errorf("%s: found %v, want %s", name, got, c.want)
		}
	}
}
