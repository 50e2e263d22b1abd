package redis

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

// booths returns two nodes' tickets on one Redis.
func booths(t *testing.T, r *redistest.Redis) (a, b *Tickets, h *clocktest.Clock) {
	t.Helper()
	h = clocktest.New()
	one := func() *Tickets {
		booth, err := New(Config{DB: redisdbtest.Open(t, r, h)})
		if err != nil {
			t.Fatal(err)
		}
		return booth
	}
	return one(), one(), h
}

func holder(device string) auth.Identity {
	return auth.Identity{Product: &catalog.Product{ID: "shop"}, User: "alice", Device: push.DeviceID(device)}
}

func issue(t *testing.T, booth *Tickets, device, token string) string {
	t.Helper()
	text, err := booth.Issue(t.Context(), holder(device), token)
	if err != nil {
		t.Fatal(err)
	}
	if !auth.IsTicket(text) {
		t.Errorf("%q has not the form of a ticket", text)
	}
	return text
}

func want(t *testing.T, booth *Tickets, text, token string) {
	t.Helper()
	got, ok, err := booth.Redeem(t.Context(), text)
	if err != nil || ok != (token != "") || got != token {
		t.Errorf("got %q, %v, %v, want %q", got, ok, err, token)
	}
}

func TestTickets_StandForTheirTokenOnceOnEveryNode(t *testing.T) {
	for _, form := range []redistest.Form{redistest.FormStandalone, redistest.FormCluster} {
		t.Run(string(form), func(t *testing.T) {
			a, b, _ := booths(t, pool.Take(t, form))
			for i := range 20 { // of several parts of a cluster
				token := fmt.Sprint("token ", i)
				text := issue(t, a, fmt.Sprint("phone", i), token)
				want(t, b, text, token)
				want(t, b, text, "")
				want(t, a, text, "")
			}
			want(t, a, "", "")
			want(t, a, strings.Repeat("A", 43), "")
			want(t, a, strings.Repeat("A", 44), "")
		})
	}
}

func TestTickets_OfTwoWhoRedeemOneAtOnceOneHasIt(t *testing.T) {
	a, b, _ := booths(t, pool.Standalone(t))
	for range 50 {
		text := issue(t, a, "phone", "token")
		var got atomic.Int64
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				_, ok, err := []*Tickets{a, b}[i%2].Redeem(t.Context(), text)
				if err != nil {
					t.Error(err)
				}
				if ok {
					got.Add(1)
				}
			})
		}
		wg.Wait()
		if got.Load() != 1 {
			t.Fatalf("%d have it", got.Load())
		}
	}
}

func TestTickets_EndAfterTheirLifeByTheStoresClock(t *testing.T) {
	a, b, h := booths(t, pool.Standalone(t))
	early, late := issue(t, a, "phone", "early"), issue(t, a, "web", "late")
	h.Advance(auth.TicketLife - time.Millisecond)
	want(t, b, early, "early")
	h.Advance(time.Millisecond)
	want(t, b, late, "")
}

func TestTickets_TheOldestOfADeviceGivesWay(t *testing.T) {
	a, b, _ := booths(t, pool.Standalone(t))
	other := issue(t, a, "web", "other")
	var texts []string
	for i := range 7 {
		texts = append(texts, issue(t, []*Tickets{a, b}[i%2], "phone", fmt.Sprint(i)))
	}
	for i, text := range texts {
		token := ""
		if i >= 3 {
			token = fmt.Sprint(i)
		}
		want(t, a, text, token)
	}
	want(t, a, other, "other")
}

func TestTickets_RedisHoldsNeitherTicketsNorTokensAndForgetsThem(t *testing.T) {
	r := pool.Standalone(t)
	a, _, _ := booths(t, r)
	text := issue(t, a, "phone", "the token of alice")
	c := r.Servers()[0].Client()
	keys, err := c.Keys(t.Context(), "c:{tickets*").Result()
	if err != nil || len(keys) != 2 {
		t.Fatalf("keys %q (%v), want the ticket's and the device's", keys, err)
	}
	for _, k := range keys {
		value, err := c.Get(t.Context(), k).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{text, "the token of alice"} {
			if strings.Contains(k+value, secret) {
				t.Errorf("%q holds %q", k, secret)
			}
		}
		if left, err := c.PTTL(t.Context(), k).Result(); err != nil || left <= 0 || left > auth.TicketLife {
			t.Errorf("%q is forgotten in %v (%v), want at the ticket's end", k, left, err)
		}
	}
}
