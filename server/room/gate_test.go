package room

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"carillon/server/admission"
	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// countingGate remembers who holds how many places.
type countingGate struct {
	held   map[admission.Address]int
	refuse bool
}

func (g *countingGate) Admit(from netip.Addr) (admission.Address, error) {
	if g.refuse {
		return 0, push.Errorf(push.KindLimited, "too_many_connections", "")
	}
	a := admission.AddressOf(from)
	g.held[a]++
	return a, nil
}

func (g *countingGate) Leave(a admission.Address) { g.held[a]-- }

// Connections end in any order, and each gives back the place of its own address.
func TestRoom_EachConnectionGivesItsOwnPlaceBack(t *testing.T) {
	gate := &countingGate{held: make(map[admission.Address]int)}
	st := newStage(t, func(c *Config) { c.Gate = gate })
	rng := rand.New(rand.NewPCG(1, 2))
	want := make(map[admission.Address]int)
	type guest struct {
		s    transport.Session
		from admission.Address
	}
	var in []guest
	for range 5000 {
		if len(in) > 0 && rng.IntN(2) == 0 {
			i := rng.IntN(len(in))
			in[i].s.Closed(wire.CloseLost)
			want[in[i].from]--
			in = append(in[:i], in[i+1:]...)
		} else {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(20))})
			s, err := st.room.Accept(&seat{}, transport.Meta{Kind: transport.WebSocket, Remote: netip.AddrPortFrom(a, 1)})
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, guest{s, admission.AddressOf(a)})
			want[admission.AddressOf(a)]++
		}
		for a, n := range want {
			if gate.held[a] != n {
				t.Fatalf("%x holds %d places, want %d", a, gate.held[a], n)
			}
		}
	}
}

func TestRoom_WhoIsRefusedAtTheGateLeavesNothingBehind(t *testing.T) {
	gate := &countingGate{held: make(map[admission.Address]int), refuse: true}
	st := newStage(t, func(c *Config) { c.Gate = gate })
	meta := transport.Meta{Kind: transport.WebSocket, Remote: netip.MustParseAddrPort("192.0.2.1:1")}
	if _, err := st.room.Accept(&seat{}, meta); push.KindOf(err) != push.KindLimited {
		t.Errorf("refused with %v, want the gate's error", err)
	}
	gate.refuse = false
	st.room.refuseNew()
	if _, err := st.room.Accept(&seat{}, meta); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("a room that drains answered %v", err)
	}
	if n := st.room.Count(); n != 0 || gate.held[admission.AddressOf(meta.Remote.Addr())] != 0 {
		t.Errorf("%d connections and %v places are left", n, gate.held)
	}
}
