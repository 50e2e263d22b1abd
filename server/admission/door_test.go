package admission

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// knocking is a connection of an address, in memory.
type knocking struct {
	net.Conn
	from   netip.Addr
	closed bool
}

func (k *knocking) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(k.from, 4711))
}
func (k *knocking) Close() error { k.closed = true; return nil }

func newDoor(t testing.TB, g *Gate, cfg DoorConfig) *Door {
	t.Helper()
	d, err := NewDoor(g, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// knock returns the connection that the door let in, nil if it closed it.
func knock(t testing.TB, d *Door, from netip.Addr) net.Conn {
	t.Helper()
	k := &knocking{from: from}
	nc := d.enter(k)
	if k.closed != (nc == nil) {
		t.Fatalf("let in is %v, closed is %v", nc != nil, k.closed)
	}
	return nc
}

// closedFor returns how many were closed for a reason.
func closedFor(t testing.TB, d *Door, why closing) int {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(d.gate.cfg.Metrics.closings[why])
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return int(families[0].GetMetric()[0].GetCounter().GetValue())
}

// An address that goes ten times past its rate is answered ten times a second, and not read beyond that; what it may have it has
// all the same.
func TestDoor_AnAddressPastItsRateIsAnsweredSeldom(t *testing.T) {
	const rate, answers = 20, 5
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Config{AddressRate: rate, AddressBurst: rate, AddressRefusals: answers})
		d := newDoor(t, g, DoorConfig{})
		var admitted, told, unread int
		const seconds = 60
		for range seconds * 10 * rate {
			time.Sleep(time.Second / (10 * rate))
			nc := knock(t, d, alice)
			if nc == nil {
				unread++
				continue
			}
			if e := refusal(t, g, alice); e == nil {
				admitted++
			} else {
				told++
			}
			nc.Close()
		}
		if most := answers * (seconds + answersBurst); told > most || told < most/2 {
			t.Errorf("%d were told that they are refused, want about %d", told, most)
		}
		if admitted < 95*rate*seconds/100 || admitted > rate*(seconds+1) {
			t.Errorf("%d were admitted, want what the address may have, %d", admitted, rate*seconds)
		}
		if got := closedFor(t, d, closedDeafTo); got != unread || unread == 0 {
			t.Errorf("%d were counted as closed, want %d", got, unread)
		}
		if knock(t, d, bob) == nil {
			t.Error("another address was not let in")
		}
		time.Sleep(time.Second)
		if knock(t, d, alice) == nil {
			t.Error("the address was not heard after a second of calm")
		}
	})
}

// A node that is asked by many at ten times its rate answers as many as its budget allows; what it takes goes to those who ask,
// and whoever was not refused lately is heard at once.
func TestDoor_ANodePastItsRateAnswersSeldom(t *testing.T) {
	const rate, answers, many = 50, 10, 20
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, Config{Rate: rate, Refusals: answers})
		d := newDoor(t, g, DoorConfig{})
		from := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
		var admitted, told int
		const seconds = 60
		for i := range seconds * 10 * rate {
			time.Sleep(time.Second / (10 * rate))
			if nc := knock(t, d, from(i%many)); nc != nil {
				if e := refusal(t, g, from(i%many)); e == nil {
					admitted++
				} else {
					told++
				}
				nc.Close()
			}
			if i%rate == 0 { // a product's server, which asks for no session
				nc := knock(t, d, bob)
				if nc == nil {
					t.Fatal("an address that was never refused was not heard")
				}
				nc.Close()
			}
		}
		// Each is answered once after its mark ran out, whatever the budget says.
		if most := answers*(seconds+answersBurst) + many*(seconds/int(marked/time.Second)+1); told > most {
			t.Errorf("%d were told that they are refused, want at most %d", told, most)
		}
		if admitted < 95*rate*seconds/100 {
			t.Errorf("%d were admitted, want what the node may take, %d", admitted, rate*seconds)
		}
		if closedFor(t, d, closedDeaf) == 0 {
			t.Error("nobody was counted as closed")
		}
	})
}

// Behind a balancer that tells addresses in headers all have one address here.
func TestDoor_ProxiesAreSpared(t *testing.T) {
	g := newGate(t, Config{AddressRate: 1, AddressRefusals: 1, Refusals: 1, Rate: 1})
	d := newDoor(t, g, DoorConfig{PerAddress: 2, Spared: func(a netip.Addr) bool { return a == alice }})
	for range 100 {
		refusal(t, g, alice) // from the second on
		if knock(t, d, alice) == nil {
			t.Fatal("a connection of a proxy was closed")
		}
	}
	if !d.Hears(alice) {
		t.Error("a proxy is not heard")
	}
}

func TestDoor_TenTimesPastItsConnections(t *testing.T) {
	const most = 7
	for _, c := range []struct {
		name   string
		cfg    DoorConfig
		why    closing
		others bool
	}{
		{"of an address", DoorConfig{PerAddress: most}, closedHolding, true},
		{"of the node", DoorConfig{Connections: most}, closedFull, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDoor(t, newGate(t, Config{}), c.cfg)
			var in []net.Conn
			for range 10 * most {
				if nc := knock(t, d, alice); nc != nil {
					in = append(in, nc)
				}
			}
			if len(in) != most || d.Open() != most || closedFor(t, d, c.why) != 9*most {
				t.Fatalf("%d were let in, %d are open, %d were closed, want %d, %[4]d and %d", len(in), d.Open(), closedFor(t, d, c.why), most, 9*most)
			}
			if other := knock(t, d, bob); (other != nil) != c.others {
				t.Errorf("another address was let in: %v, want %v", other != nil, c.others)
			} else if other != nil {
				other.Close()
			}
			in[0].Close()
			in[0].Close() // gives back one place only
			again := knock(t, d, alice)
			if again == nil || knock(t, d, alice) != nil {
				t.Error("the place of one that was closed is not free, or is free twice")
			}
			for _, nc := range append(in[1:], again) {
				nc.Close()
			}
			if d.Open() != 0 {
				t.Errorf("%d are open after all were closed", d.Open())
			}
		})
	}
}

// Sessions have a limit of their own, so they leave their address's places here; the node's descriptors they go on to use.
func TestDoor_SessionsCountForTheNodeAlone(t *testing.T) {
	g := newGate(t, Config{})
	d := newDoor(t, g, DoorConfig{Connections: 3, PerAddress: 1})
	for range 3 {
		nc := knock(t, d, alice)
		if nc == nil {
			t.Fatal("a connection was closed although those before it became sessions")
		}
		if _, err := g.Admit(alice); err != nil {
			t.Fatal(err)
		}
		nc.(interface{ Seat() }).Seat()
		nc.Close() // gives back no second place
	}
	if d.Open() != 0 {
		t.Errorf("%d are open without a session, want none", d.Open())
	}
	if knock(t, d, bob) != nil {
		t.Error("a fourth connection was let in")
	}
	g.Leave(AddressOf(alice))
	if knock(t, d, bob) == nil {
		t.Error("refused although a session is gone")
	}
}

func TestDoor_WhatComesBackCountsAgain(t *testing.T) {
	d := newDoor(t, newGate(t, Config{}), DoorConfig{PerAddress: 1})
	back := d.Back(&knocking{from: bob}, net.TCPAddrFromAddrPort(netip.AddrPortFrom(alice, 1))) // what bob's proxy said
	if knock(t, d, alice) != nil || knock(t, d, bob) == nil {
		t.Error("it does not count for whom it is of")
	}
	if own := d.Back(&knocking{from: alice}, nil); own == nil || d.Open() != 3 {
		t.Errorf("%d are open, want 3: one that was let in before is not asked again", d.Open())
	}
	back.Close()
}

// Transports park connections by their descriptor, and write past wrappers that pass it on.
func TestDoor_PassesOnWhatASocketHas(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = newDoor(t, newGate(t, Config{}), DoorConfig{}).Listen(l)
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, ok := nc.(syscall.Conn); !ok {
		t.Error("it has no descriptor")
	}
	if err := errors.Join(nc.(interface{ SetLinger(int) error }).SetLinger(-1), nc.(interface{ CloseWrite() error }).CloseWrite()); err != nil {
		t.Error(err)
	}
	if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the peer read %d, %v, want the end", n, err)
	}
	if _, ok := newDoor(t, newGate(t, Config{}), DoorConfig{}).wrap(&knocking{}, 0).(syscall.Conn); ok {
		t.Error("what has no descriptor says that it has one")
	}
}

// The client sees the end at once, and the kernel keeps nothing.
func TestDoor_WhoIsNotLetInIsReset(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(t, newGate(t, Config{}), DoorConfig{PerAddress: 1})
	if knock(t, d, netip.MustParseAddr("127.0.0.1")) == nil {
		t.Fatal("the first was closed")
	}
	l := d.Listen(inner)
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	for range 10 {
		far, err := net.Dial("tcp", l.Addr().String())
		if err == nil { // the reset may be there before Dial returns
			_, err = far.Read(make([]byte, 1))
			far.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer got %v, want a reset", err)
		}
	}
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v, want net.ErrClosed", err)
	}
}
