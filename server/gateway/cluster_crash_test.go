//go:build failpoints

package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"carillon/server/client"
	"carillon/server/fleet"
	"carillon/server/history"
	"carillon/server/transport"
)

// These tests run a whole cluster of processes behind a balancer, and torment it.

// newFleet starts three rooms and two centers. The proc is the cluster as clients see it, through the balancer.
func newFleet(t *testing.T) (*fleet.Fleet, *proc) {
	t.Helper()
	return startFleet(t, fleet.Config{})
}

// startFleet starts the nodes that the configuration names, of the binary as it is released if it names none.
func startFleet(t *testing.T, cfg fleet.Config) (*fleet.Fleet, *proc) {
	t.Helper()
	if cfg.Binary == "" {
		bin, err := plainBinary()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Binary = bin
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cfg.Dir = t.TempDir()
	if cfg.Redis.Mode == "" {
		cfg.Redis = pool.Standalone(t).Access()
	}
	f, err := fleet.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	public, tcp := listenHere(t), listenHere(t)
	b := fleet.NewBalancer(f)
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- b.Serve(serving, public, nil) }()
	go func() { served <- b.ServeTCP(serving, tcp) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-served, <-served, f.Close()); err != nil {
			t.Error(err)
		}
	})
	p := clientsOf(t, cfg.Dir, public.Addr().String(), tcp.Addr().String())
	d, err := f.SetUp(ctx, "http://"+*p.addr.Load(), "tcp://"+*p.tcp.Load())
	if err != nil {
		t.Fatal(err)
	}
	p.key, p.sendsTo = d.APIKey, b.SendsTo
	return f, p
}

func listenHere(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// clientsOf returns what is needed to be a client of servers that others start.
func clientsOf(t *testing.T, dir, public, tcp string) *proc {
	p := &proc{t: t, data: dir}
	p.addr.Store(&public)
	p.tcp.Store(&tcp)
	return p
}

// A room is frozen until its lease has run out, while one of its devices goes on elsewhere. When it is back it has messages for both of its
// devices before it: of that one it says nothing but that it is replaced, and the other one gets what it missed, once.
func TestCrash_AFrozenRoomComesBackAndPushesNothingToWhomItLost(t *testing.T) {
	f, p := newFleet(t)
	ctx := t.Context()
	zombie := f.Of(fleet.Room)[0]
	old, next := clientsOf(t, p.data, zombie.Public(), zombie.TCP()), f.Of(fleet.Room)[1]
	log := history.NewLog(time.Now())
	online := func(at *proc, name string, over transport.Kind) *device {
		d := &device{name: history.Device{User: "alice", Device: name}, over: over}
		up := make(chan struct{}, 10)
		at.connect(ctx, d, log, func() { up <- struct{}{} })
		<-up
		return d
	}
	var lost, kept []*device
	for _, over := range overs {
		lost = append(lost, online(old, "lost-"+string(over), over))
		kept = append(kept, online(old, "kept-"+string(over), over))
	}
	if err := zombie.Freeze(); err != nil {
		t.Fatal(err)
	}
	thawed := false
	defer func() {
		if !thawed {
			_ = zombie.Thaw()
		}
	}()
	elsewhere := clientsOf(t, p.data, next.Public(), next.TCP())
	var moved []*device
	for _, over := range overs {
		moved = append(moved, online(elsewhere, "lost-"+string(over), over))
	}
	c := p.http()
	const messages = 5
	for i := range messages {
		var status int
		eventually(t, 30*time.Second, func() bool {
			status, _ = p.post(ctx, c, http.MethodPost, "/v1/messages", fmt.Sprint("key-", i), map[string]any{
				"to": map[string]any{"users": []string{"alice"}}, "message": map[string]any{"body": i},
			})
			return status == http.StatusCreated
		}, func() string { return fmt.Sprintf("publishing is answered %d", status) })
	}
	eventually(t, 60*time.Second, func() bool { // a kick is certain when every room whose lease holds has answered
		_, a := p.post(ctx, c, http.MethodPost, "/v1/users/nobody/kick", "", map[string]any{})
		return a["status"] == "confirmed"
	}, func() string { return "the lease of the frozen room does not end" })
	if err := zombie.Thaw(); err != nil {
		t.Fatal(err)
	}
	thawed = true
	for _, d := range append(kept, moved...) {
		eventually(t, 60*time.Second, func() bool { return d.seen.Load() >= messages }, d.where)
	}
	for _, d := range lost {
		select {
		case err := <-d.done:
			if err == nil {
				t.Errorf("%v ended in peace, want it replaced", d.name)
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("nobody tells %s: %s", d.name.Device, d.where())
		}
		if n := d.seen.Load(); n != 0 {
			t.Errorf("the room that had lost %v pushed it %d messages", d.name, n)
		}
	}
	for _, d := range append(kept, moved...) {
		d.leave(t)
		if s := d.last.Load(); s == nil || s.Phase == client.Connecting {
			t.Errorf("%s", d.where())
		}
		if n := d.seen.Load(); n != messages {
			t.Errorf("%v got %d messages, want %d", d.name, n, messages)
		}
	}
}
