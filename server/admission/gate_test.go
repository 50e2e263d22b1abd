package admission

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
)

var alice, bob = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

func newGate(t testing.TB, cfg Config) *Gate {
	t.Helper()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// refusal returns what Admit refused with, nil if it admitted.
func refusal(t testing.TB, g *Gate, from netip.Addr) *push.Error {
	t.Helper()
	_, err := g.Admit(from)
	if err == nil {
		return nil
	}
	var e *push.Error
	if !errors.As(err, &e) || e.After <= 0 {
		t.Fatalf("refused with %v, want a *push.Error that says when to come back", err)
	}
	return e
}

func wantCode(t testing.TB, e *push.Error, code string) {
	t.Helper()
	if e == nil || e.Code != code {
		t.Errorf("got %v, want a refusal %q", e, code)
	}
}

// Over any stretch of time: no more than the burst and what the rate gives in it. Arrivals are ten times as many.
func TestGate_AdmitsAtTheRateAndNoFaster(t *testing.T) {
	const rate, burst = 100, 30
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		g := newGate(t, Config{Rate: rate, Burst: burst})
		var admitted []time.Time
		began := time.Now()
		for time.Since(began) < time.Minute {
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(time.Second) / (10 * rate)))
			if rng.IntN(2000) == 0 {
				time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond) // a lull fills the bucket
			}
			if refusal(t, g, alice) == nil {
				admitted = append(admitted, time.Now())
			}
		}
		for i := range admitted {
			for n := 1; i+n < len(admitted) && n < 500; n++ {
				if took := admitted[i+n].Sub(admitted[i]); float64(n+1) > burst+rate*took.Seconds()+1e-6 {
					t.Fatalf("%d were admitted in %v, which is more than a burst of %d and %d a second", n+1, took, burst, rate)
				}
			}
		}
		if got := float64(len(admitted)) / time.Since(began).Seconds(); got < 0.95*rate {
			t.Errorf("%.1f a second were admitted of ten times as many, want about %d", got, rate)
		}
	})
}

func TestGate_AStormComesBackAsAQueue(t *testing.T) {
	const rate, storm = 100, 3000
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Config{Rate: rate})
		began := time.Now()
		var back []time.Duration
		for range rate + storm {
			if e := refusal(t, g, alice); e != nil {
				wantCode(t, e, "overloaded")
				back = append(back, e.After)
			}
		}
		if len(back) != storm {
			t.Fatalf("%d were refused, want %d", len(back), storm)
		}
		if !slices.IsSorted(back) || back[0] < time.Second || back[storm-1] > time.Second+storm*time.Second/rate {
			t.Errorf("they come back from %v to %v, want one behind the other from a second on", back[0], back[storm-1])
		}
		for i, after := range back {
			time.Sleep(after - time.Since(began))
			if e := refusal(t, g, alice); e != nil {
				t.Fatalf("number %d came back when it was told and was refused: %v", i, e)
			}
		}
	})
}

func TestGate_BeyondAMinuteTheyAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Config{Rate: 10})
		late := 0
		for range 10_000 {
			e := refusal(t, g, alice)
			if e == nil {
				continue
			}
			if e.After > maxAfter {
				t.Fatalf("told to wait %v, want at most %v", e.After, maxAfter)
			}
			if e.After >= maxAfter/2 {
				late++
			}
		}
		if late < 9000 {
			t.Errorf("%d were told to wait for half a minute or longer, want nearly all", late)
		}
		time.Sleep(maxAfter)
		for range 10 {
			if e := refusal(t, g, alice); e != nil {
				t.Fatalf("refused in the calm after it: %v", e)
			}
		}
		if e := refusal(t, g, alice); e == nil || e.After > 2*time.Second {
			t.Errorf("got %v, want a delay that does not count the old storm", e)
		}
	})
}

func TestGate_AddressPastItsLimitCostsTheOthersNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		most int
		code string
	}{
		{"held", Config{Rate: 50, Burst: 40, PerAddress: 20}, 20, "too_many_connections"},
		{"a second", Config{Rate: 50, Burst: 40, AddressRate: 5, AddressBurst: 20}, 20, "connecting_too_fast"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, c.cfg)
				admitted := 0
				for range 10 * c.most {
					if e := refusal(t, g, alice); e == nil {
						admitted++
					} else {
						wantCode(t, e, c.code)
					}
				}
				if admitted != c.most {
					t.Errorf("%d of one address were admitted, want %d", admitted, c.most)
				}
				for range 20 { // what is left of the node's burst
					if e := refusal(t, g, bob); e != nil {
						t.Fatalf("another address was refused: %v", e)
					}
				}
			})
		})
	}
}

// Requests that begin no session: ten times the rate, and another address beside it.
func TestGate_RequestsOfAnAddressHaveARate(t *testing.T) {
	const rate, seconds = 5, 60
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Config{AddressRequests: rate})
		admitted := 0
		for range seconds * 10 * rate {
			time.Sleep(time.Second / (10 * rate))
			err := g.AdmitRequest(alice)
			if err == nil {
				admitted++
				continue
			}
			var e *push.Error
			if !errors.As(err, &e) || e.Kind != push.KindLimited || e.After < minAfter {
				t.Fatalf("refused with %v, want when to come back", err)
			}
			wantCode(t, e, "too_many_requests")
		}
		if want := rate * (seconds + requestBurst); admitted > want || admitted < want-rate {
			t.Errorf("%d requests were admitted, want %d", admitted, want)
		}
		if err := errors.Join(g.AdmitRequest(bob), g.AdmitRequest(netip.Addr{})); err != nil {
			t.Errorf("another address was refused: %v", err)
		}
		if e := refusal(t, g, alice); e != nil {
			t.Errorf("a connection was refused for requests: %v", e)
		}
	})
}

func TestGate_PlacesComeBackAndOnlyOnce(t *testing.T) {
	g := newGate(t, Config{Sessions: 3, PerAddress: 2})
	a, _ := g.Admit(alice)
	g.Admit(alice)
	wantCode(t, refusal(t, g, alice), "too_many_connections")
	b, _ := g.Admit(bob)
	wantCode(t, refusal(t, g, bob), "overloaded") // the node is full, and the address's place was given back
	g.Leave(a)
	g.Leave(b)
	if e := refusal(t, g, bob); e != nil {
		t.Errorf("bob was refused: %v", e)
	}
	if e := refusal(t, g, alice); e != nil {
		t.Errorf("alice was refused: %v", e)
	}
	if got := g.Sessions(); got != 3 {
		t.Errorf("%d places are taken, want 3", got)
	}
}

func TestGate_RefusedForTheNodeKeepsNoPlaceOfItsAddress(t *testing.T) {
	g := newGate(t, Config{Sessions: 1, PerAddress: 1})
	a, _ := g.Admit(alice)
	for range 10 {
		wantCode(t, refusal(t, g, bob), "overloaded")
	}
	g.Leave(a)
	if e := refusal(t, g, bob); e != nil {
		t.Errorf("refused although there is room again: %v", e)
	}
	n := 0
	for i := range g.holders.parts {
		n += len(g.holders.parts[i].n)
	}
	if n != 1 {
		t.Errorf("%d addresses are remembered, want the one that holds a place", n)
	}
}

func TestGate_AboveItsMemoryBudgetItTakesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live, looks := int64(90), 0
		g := newGate(t, Config{HeapBytes: 100, Live: func() int64 { looks++; return live }})
		for range 10 {
			if e := refusal(t, g, alice); e != nil {
				t.Fatalf("refused below the budget: %v", e)
			}
		}
		live = 101
		time.Sleep(time.Second)
		for range 100 {
			wantCode(t, refusal(t, g, alice), "overloaded")
		}
		live = 100
		time.Sleep(time.Second)
		if e := refusal(t, g, alice); e != nil {
			t.Errorf("refused although memory is there again: %v", e)
		}
		if looks != 3 {
			t.Errorf("the heap was looked at %d times, want once a second", looks)
		}
	})
}

func TestGate_AtOnceExactlyTheLimitsAreAdmitted(t *testing.T) {
	for _, cfg := range []Config{{Rate: 1, Burst: 100}, {Sessions: 100}, {PerAddress: 100}, {AddressRate: 1, AddressBurst: 100}} {
		t.Run(fmt.Sprintf("%+v", cfg), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, cfg)
				var admitted atomic.Int64
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						for range 125 {
							if _, err := g.Admit(alice); err == nil {
								admitted.Add(1)
							}
						}
					})
				}
				wg.Wait()
				if admitted.Load() != 100 || g.Sessions() != 100 {
					t.Errorf("%d of 1000 were admitted and %d places taken, want 100", admitted.Load(), g.Sessions())
				}
			})
		})
	}
}

// Everybody has as many IPv6 addresses as they like, so it is the network that counts.
func TestAddress_IsTheNetworkInIPv6(t *testing.T) {
	same := [][2]string{{"2001:db8::1", "2001:db8::ffff:2"}, {"192.0.2.1", "::ffff:192.0.2.1"}, {"fe80::1%eth0", "fe80::2"}}
	other := [][2]string{{"2001:db8::1", "2001:db8:0:1::1"}, {"192.0.2.1", "192.0.2.2"}, {"0.0.0.0", "::"}}
	for i, pairs := range [][][2]string{same, other} {
		for _, p := range pairs {
			a, b := AddressOf(netip.MustParseAddr(p[0])), AddressOf(netip.MustParseAddr(p[1]))
			if (a == b) != (i == 0) {
				t.Errorf("%s and %s: %x and %x", p[0], p[1], a, b)
			}
		}
	}
	if AddressOf(netip.Addr{}) != 0 {
		t.Error("an invalid address is limited")
	}
	if AddressOf(netip.IPv6Loopback()) == 0 {
		t.Error("::1 is not limited")
	}
}

func TestGate_AConnectionAllocatesNothing(t *testing.T) {
	g := newGate(t, Config{Rate: 1e6, Sessions: 1e6, PerAddress: 1000, AddressRate: 1e6, HeapBytes: 1 << 40})
	hold, _ := g.Admit(alice) // an address that holds something has its entry
	if n := testing.AllocsPerRun(1000, func() {
		a, err := g.Admit(alice)
		if err != nil {
			t.Fatal(err)
		}
		g.Leave(a)
	}); n > 0 {
		t.Errorf("%v allocations a connection, want none", n)
	}
	g.Leave(hold)
}

func TestNew_RefusesWhatMakesNoSense(t *testing.T) {
	for _, cfg := range []Config{{Rate: -1}, {PerAddress: -1}, {HeapBytes: -1}, {Refusals: -1}, {AddressRequests: -1}, {Burst: 5}, {AddressBurst: 5}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v) took it", cfg)
		}
	}
	if _, err := NewDoor(newGate(t, Config{}), DoorConfig{PerAddress: -1}); err == nil {
		t.Error("NewDoor took a negative limit")
	}
}

// BenchmarkAdmit: what a connection is asked, with a hundred thousand addresses online and with one.
func BenchmarkAdmit(b *testing.B) {
	for _, online := range []int{1, 100_000} {
		b.Run(fmt.Sprint("online=", online), func(b *testing.B) {
			g := newGate(b, Config{Rate: 1e9, Sessions: 1e9, PerAddress: 1e6, AddressRate: 1e9, HeapBytes: 1 << 40})
			for i := range online {
				g.Admit(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
			}
			b.ReportAllocs()
			for b.Loop() {
				a, _ := g.Admit(alice)
				g.Leave(a)
			}
		})
	}
}

// BenchmarkDoor: what a connection costs at the door, let in and turned away, without the system calls.
func BenchmarkDoor(b *testing.B) {
	g := newGate(b, Config{Refusals: 1e6, AddressRefusals: 1e6})
	d := newDoor(b, g, DoorConfig{Connections: 1e9, PerAddress: 10})
	for _, c := range []struct {
		name string
		held int
	}{{"in", 1}, {"away", 10}} {
		for d.Open() < c.held {
			if knock(b, d, alice) == nil {
				b.Fatal("not let in")
			}
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			k := &knocking{from: alice}
			for b.Loop() {
				if nc := d.enter(k); nc != nil {
					nc.Close()
				}
			}
		})
	}
}
