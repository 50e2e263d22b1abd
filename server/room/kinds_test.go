package room

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

var kinds = []transport.Kind{transport.WebSocket, transport.TCP, transport.SSE, transport.LongPoll}

// beats has a device show that it lives as its welcome asks for, until it is gone.
func (d *device) beats() {
	every := time.Duration(framesOf[*wire.Welcome](d)[0].HeartbeatMillis) * time.Millisecond
	go func() {
		for {
			select {
			case <-d.done:
				return
			case <-time.After(every):
			}
			d.mu.Lock()
			dark := d.dark
			d.mu.Unlock()
			if dark {
				return
			}
			d.send(&wire.Ping{})
		}
	}()
}

// connectAll connects a device over each transport and has it live as such a client does.
func (w *world) connectAll(room push.RoomID) []*device {
	w.t.Helper()
	var ds []*device
	for _, kind := range kinds {
		d := w.connectOver(kind, room, fmt.Sprintf("alice/%s/android", kind), "")
		if len(framesOf[*wire.Welcome](d)) != 1 {
			w.t.Fatalf("%s: no welcome came", kind)
		}
		if capabilities[kind].Duplex {
			d.beats()
		}
		ds = append(ds, d)
	}
	return ds
}

func TestSession_AnHourOfHeartbeatsOverEachTransport(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		ds := w.connectAll("r1")
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, d := range ds {
			if got := d.closedWith(); got != 0 {
				t.Fatalf("%s: closed with %v", d.kind, got)
			}
			every := time.Duration(framesOf[*wire.Welcome](d)[0].HeartbeatMillis) * time.Millisecond
			least, most := int(time.Hour/(every+2*wheelTick))-1, int(time.Hour/every)
			pings, pongs := len(framesOf[*wire.Ping](d)), len(framesOf[*wire.Pong](d))
			if capabilities[d.kind].Duplex {
				pings, pongs = pongs, pings
			}
			if pings < least || pings > most || pongs != 0 {
				t.Errorf("%s: %d signs of life in an hour and %d others, want %d to %d at an interval of %v", d.kind, pings, pongs,
					least, most, every)
			}
		}
		id := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		synctest.Wait()
		for _, d := range ds {
			d.want(id)
		}
	})
}

func TestSession_ALineThatCarriesSomethingIsNotPinged(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connectOver(transport.SSE, "r1", "alice/web/web", "")
		for range 60 {
			time.Sleep(20 * time.Second)
			w.publish(post{to: []push.UserID{"alice"}, body: `1`, live: true})
		}
		synctest.Wait()
		if n := len(framesOf[*wire.Ping](d)); n != 0 {
			t.Errorf("%d pings between messages that came more often than an interval, want none", n)
		}
	})
}

func TestSession_HalfOpenPeerIsGoneAfterIntervalAndGrace(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		ds := w.connectAll("r1")
		time.Sleep(10*time.Minute + 3*time.Second)
		var began []time.Time
		for _, d := range ds {
			d.goDark()
			began = append(began, time.Now())
		}
		id := w.publish(post{to: []push.UserID{"alice"}, body: `1`, silent: true})
		for i, d := range ds {
			d.gone()
			welcome := framesOf[*wire.Welcome](d)[0]
			most := time.Duration(welcome.HeartbeatMillis+welcome.GraceMillis) * time.Millisecond
			if took := time.Since(began[i]); took > most+time.Second {
				t.Errorf("%s: gone after %v, want at most %v", d.kind, took, most)
			}
			want := wire.CloseSilent
			if !capabilities[d.kind].Duplex {
				want = wire.CloseLost
			}
			if got := d.closedWith(); got != want {
				t.Errorf("%s: closed with %v, want %v", d.kind, got, want)
			}
		}
		time.Sleep(time.Second)
		if n, err := w.reg.Count(w.ctx, product); err != nil || n != 0 {
			t.Errorf("the register counts %d sessions (%v), want none", n, err)
		}
		for _, d := range ds {
			again := w.connectOver(d.kind, "r1", fmt.Sprintf("alice/%s/android", d.kind), d.theCursor())
			time.Sleep(time.Second) // what polls comes again
			again.want(id)
		}
	})
}

func TestSession_TokenRunsOutOverEachTransport(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		var ds []*device
		for _, kind := range kinds {
			ds = append(ds, w.connectOver(kind, "r1", fmt.Sprintf("alice/%s/android/7s", kind), ""))
		}
		time.Sleep(6900 * time.Millisecond)
		for _, d := range ds {
			if got := d.closedWith(); got != 0 {
				t.Errorf("%s: closed with %v before its token ran out", d.kind, got)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for _, d := range ds {
			kicks := framesOf[*wire.Kick](d)
			if d.closedWith() != wire.CloseTokenExpired || len(kicks) != 1 || kicks[0].Code != wire.CloseTokenExpired {
				t.Errorf("%s: closed with %v and kicks %+v, want one token_expired", d.kind, d.closedWith(), kicks)
			}
		}
	})
}

func TestRoom_DrainOfAThousandClientsLosesNothing(t *testing.T) {
	const n = 1000
	const spread = 20 * time.Second
	addresses := map[transport.Kind]string{transport.WebSocket: "wss://b.example.com/connect", transport.SSE: "https://b.example.com/connect/sse"}
	tune := func(_ *world, c *Config) { c.Goodbye = Goodbye{Spread: spread, Addresses: addresses} }
	inWorld(t, []push.RoomID{"r1", "r2"}, tune, func(w *world) {
		var ds []*device
		var users []push.UserID
		token := func(i int) string { return fmt.Sprintf("user%d/phone/android", i) }
		for i := range n {
			users = append(users, push.UserID(fmt.Sprintf("user%d", i)))
			ds = append(ds, w.connectOver(kinds[i%len(kinds)], "r1", token(i), ""))
		}
		own := func(us []push.UserID) push.MsgID { return w.publish(post{to: us, body: `"own"`}) }
		all := func() push.MsgID { return w.publish(post{body: `"all"`}) }
		want := []push.MsgID{own(users), all()}
		// Some of what follows meets the goodbyes on their way.
		left := make(chan error, 1)
		go func() { left <- w.rooms["r1"].Drain(w.ctx) }()
		want = append(want, own(users), all())
		if err := <-left; err != nil {
			t.Fatal(err)
		}
		want = append(want, own(users), all())
		delays := make(map[uint32]int)
		back := make([]*device, n)
		arrived := make(chan int, n)
		for i, d := range ds {
			gs := framesOf[*wire.Goaway](d)
			if len(gs) != 1 || d.closedWith() != wire.CloseGoingAway || gs[0].Address != addresses[d.kind] {
				t.Fatalf("%s: got goaways %+v and close %v", d.kind, gs, d.closedWith())
			}
			delay := time.Duration(gs[0].DelayMillis) * time.Millisecond
			if delay >= spread {
				t.Fatalf("a client is told to come back after %v, want below %v", delay, spread)
			}
			delays[gs[0].DelayMillis/(uint32(spread.Milliseconds())/10)]++
			time.AfterFunc(delay, func() {
				back[i] = w.dialOver(kinds[(i+1)%len(kinds)], "r2")
				back[i].send(&wire.Connect{Version: wire.Version, Token: token(i), Cursor: d.theCursor()})
				if back[i].kind == transport.LongPoll {
					go back[i].keepPolling()
				}
				arrived <- i
			})
		}
		for range n {
			<-arrived
		}
		time.Sleep(time.Second)
		for tenth := range uint32(10) {
			if delays[tenth] < n/20 {
				t.Errorf("%d of %d clients come back in tenth %d of the spread, want about as many as in each", delays[tenth], n, tenth)
			}
		}
		slices.Sort(want)
		for i, d := range ds {
			got := append(d.received(), back[i].received()...)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("client %d got %v, want each of %v once", i, got, want)
			}
		}
	})
}
