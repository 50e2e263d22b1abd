//go:build failpoints

package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"carillon/server/fleet"
	"carillon/server/history"
)

// online connects the devices of a load and waits until each has caught up.
func (l *load) online(t *testing.T) {
	t.Helper()
	var up sync.WaitGroup
	for _, d := range l.devices {
		var once sync.Once
		up.Add(1)
		l.p.connect(t.Context(), d, l.log, func() { once.Do(up.Done) })
	}
	caught := make(chan struct{})
	go func() { up.Wait(); close(caught) }()
	select {
	case <-caught:
	case <-time.After(60 * time.Second):
		for _, d := range l.devices {
			t.Log(d.where())
		}
		t.Fatal("not every device comes online")
	}
}

// sendOnce sends a message as somebody does who never repeats a request, and reports whether it was accepted.
func (l *load) sendOnce(ctx context.Context, c *http.Client, sender string, seq int, to string) bool {
	body := fmt.Sprintf("%s/%d", sender, seq)
	rec := history.Record{Kind: history.Invoke, Sender: sender, Seq: seq, Body: fmt.Sprintf("%q", body), Persistent: true, To: []string{to}}
	audience := map[string]any{"users": []string{to}}
	count := l.expected[to]
	if to == "" {
		rec.To, rec.Everyone = nil, true
		audience, count = map[string]any{"everyone": true}, &l.everyone
	}
	l.log.Add(rec)
	status, answer := l.p.post(ctx, c, http.MethodPost, "/v1/messages", "", map[string]any{"to": audience, "message": map[string]any{"body": body}})
	if status != http.StatusCreated {
		l.log.Add(history.Record{Kind: history.Unknown, Sender: sender, Seq: seq})
		l.p.t.Errorf("%s was answered %d %v", body, status, answer)
		return false
	}
	id, _ := answer["id"].(string)
	l.log.Add(history.Record{Kind: history.OK, Sender: sender, Seq: seq, ID: id})
	l.accepted.Add(1)
	count.Add(1)
	select {
	case l.progress <- struct{}{}:
	default:
	}
	return true
}

// oneTimeSenders runs n senders that never repeat a request, until ctx ends or one of theirs fails.
func (l *load) oneTimeSenders(ctx, finish context.Context, n int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c := l.p.http()
			rng := rand.New(rand.NewPCG(uint64(i), 11))
			for seq := 1; ctx.Err() == nil; seq++ {
				to := ""
				if rng.IntN(20) > 0 {
					to = l.users[rng.IntN(len(l.users))]
				}
				if !l.sendOnce(finish, c, fmt.Sprintf("once%d", i), seq, to) {
					return
				}
				pause(ctx, 2*time.Millisecond)
			}
		})
	}
	return &wg
}

// awaitProgress waits until so many messages more were accepted.
func (l *load) awaitProgress(t *testing.T, n int) {
	t.Helper()
	patience := time.After(60 * time.Second)
	for range n {
		select {
		case <-l.progress:
		case <-patience:
			t.Fatal("nothing is accepted")
		}
	}
}

// restart ends nodes in peace, all of them at once, begins their next lives, and waits until they get requests again.
func restart(t *testing.T, p *proc, nodes ...*fleet.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			began := time.Now()
			if err := n.Stop(); err != nil {
				t.Error(err)
				return
			}
			t.Logf("%s ended %v after it was told to", n.Name(), time.Since(began).Round(time.Millisecond))
			if err := n.Start(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, n := range nodes {
		eventually(t, time.Minute, func() bool { return p.sendsTo(n) }, func() string { return n.Name() + " gets no requests" })
	}
}

// Every node is told to end and started again, as a deploy does, while product servers that never repeat a request publish: none of them
// sees anything of it, and the devices, over every transport, get all of it, once and in order.
func TestRolling_RestartOfAllNodesFailsNoPublishAndLosesNothing(t *testing.T) {
	f, p := startFleet(t, fleet.Config{Env: []string{"CARILLON_DRAIN_SPREAD=500ms"}})
	l := newLoad(p, 4, overs...)
	l.online(t)
	sending, enough := context.WithCancel(t.Context())
	defer enough()
	wg := l.oneTimeSenders(sending, t.Context(), 4)
	rooms, centers := f.Of(fleet.Room), f.Of(fleet.Center)
	for _, nodes := range [][]*fleet.Node{{rooms[0], centers[0]}, {rooms[1], centers[1]}, {rooms[2]}} {
		restart(t, p, nodes...)
		l.awaitProgress(t, 20)
	}
	enough()
	wg.Wait()
	l.rest(t)
	t.Logf("%d messages accepted, %d of them to everyone, and none refused", l.accepted.Load(), l.everyone.Load())
}

// homes returns where the sessions of the load's devices are, as a center sees it.
func (l *load) homes(t *testing.T, f *fleet.Fleet) map[history.Device]string {
	t.Helper()
	out := make(map[history.Device]string)
	for _, u := range l.users {
		at := "http://" + f.Of(fleet.Center)[0].Admin() + "/admin/v1/sessions?product=" + fleet.Product + "&user=" + u
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+f.Secret())
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var a struct {
			Sessions []struct{ Device, Room string }
		}
		err = json.NewDecoder(resp.Body).Decode(&a)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("sessions of %s: %s, %v", u, resp.Status, err)
		}
		for _, s := range a.Sessions {
			out[history.Device{User: u, Device: s.Device}] = s.Room
		}
	}
	return out
}

// Rooms die one after the other, and their devices are back and have caught up by the others, on every transport. How soon is a figure, and
// no part of the claim: it is the machine's as much as ours.
func TestCrash_RoomsDieInTurnAndTheirDevicesGoOnElsewhere(t *testing.T) {
	f, p := startFleet(t, fleet.Config{})
	l := newLoad(p, 12, overs...)
	caught := make(chan *device, 1000)
	var up sync.WaitGroup
	for _, d := range l.devices {
		var once sync.Once
		up.Add(1)
		p.connect(t.Context(), d, l.log, func() {
			once.Do(up.Done)
			select {
			case caught <- d:
			default: // a device that polls goes from room to room, and nobody waits for it
			}
		})
	}
	up.Wait()
	sending, enough := context.WithCancel(t.Context())
	defer enough()
	wg := l.senders(sending, t.Context(), 2)
	var took []time.Duration
	for _, room := range f.Of(fleet.Room) {
		l.awaitProgress(t, 20)
		waiting := make(map[*device]bool)
		homes := l.homes(t, f)
		for _, d := range l.devices {
			if homes[d.name] == room.Name() {
				waiting[d] = true
			}
		}
		for len(caught) > 0 {
			<-caught
		}
		died, patience := time.Now(), time.After(60*time.Second)
		room.Kill()
		for len(waiting) > 0 {
			select {
			case d := <-caught:
				if waiting[d] {
					took = append(took, time.Since(died))
					delete(waiting, d)
				}
			case <-patience:
				for d := range waiting {
					t.Error(d.where())
				}
				t.Fatalf("%s died, and its devices do not come back", room.Name())
			}
		}
		if err := room.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	enough()
	wg.Wait()
	l.rest(t)
	if len(took) == 0 {
		t.Fatal("no room that died had a device")
	}
	slices.SortFunc(took, cmp.Compare[time.Duration])
	t.Logf("%d devices of rooms that died were back and had caught up after %v at the median, %v at the 99th percentile, %v at most",
		len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}
