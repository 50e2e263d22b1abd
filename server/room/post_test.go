package room

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/auth"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

// post sends frames of alice's phone beside her session.
func (w *world) post(frames ...wire.Frame) error {
	return w.rooms["r1"].Post(w.ctx, "alice/phone/android", frames)
}

// stored is the position of alice's phone in her own slot, as the store has it.
func (w *world) stored() push.Position {
	w.t.Helper()
	u, err := w.saver.User(w.ctx, saver.UserRef{Product: product, Shards: shards, User: "alice"})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range u.Devices {
		if d := &u.Devices[i]; d.Device == "phone" {
			return d.Cursors[push.Own].Pos
		}
	}
	w.t.Fatal("the store knows no phone of alice")
	return 0
}

func code(err error) string {
	if e := asError(err); e != nil {
		return e.Code
	}
	return ""
}

func TestPost_GoesToTheSessionThatIsHere(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connectOver(transport.SSE, "r1", "alice/phone/android/10s", "")
		w.toAlice()
		synctest.Wait()
		before := w.stored()
		if err := w.post(&wire.Ack{Cursor: d.theCursor()}, &wire.Ping{}, &wire.Refresh{Token: "alice/phone/android/1h"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.stored(); got != before+1 {
			t.Errorf("the stored cursor went from %d to %d, want one further", before, got)
		}
		if pongs, fresh := framesOf[*wire.Pong](d), framesOf[*wire.Refresh](d); len(pongs) != 1 || len(fresh) != 1 {
			t.Errorf("the stream brought %d pongs and %d confirmed tokens, want one of each", len(pongs), len(fresh))
		}
		time.Sleep(20 * time.Second)
		if got := d.closedWith(); got != 0 {
			t.Errorf("closed with %v although the token was renewed", got)
		}
		// Beyond what the session was sent it acknowledges nothing.
		o, c, _ := push.ParseCursor(d.theCursor())
		c[push.Own].Pos += 1000
		if err := w.post(&wire.Ack{Cursor: string(push.AppendCursor(nil, o, c))}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := w.stored(); got != before+1 {
			t.Errorf("the stored cursor went to %d beyond the %d that were sent", got, before+1)
		}
	})
}

func TestPost_AcknowledgesWithoutASessionHere(t *testing.T) {
	inWorld(t, []push.RoomID{"r1", "r2"}, nil, func(w *world) {
		d := w.connect("r2", "alice/phone/android", "")
		a := w.toAlice()
		synctest.Wait()
		d.want(a)
		before := w.stored()
		owner, places, _ := push.ParseCursor(d.theCursor())
		if err := w.post(&wire.Ack{Cursor: string(push.AppendCursor(nil, owner+1, places))}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if got := w.stored(); got != before {
			t.Errorf("the cursor of another device moved the stored one from %d to %d", before, got)
		}
		fail := 2
		w.saver.set(func(g *gate) {
			g.onAck = func([]saver.Ack) error {
				if fail--; fail >= 0 {
					return errors.New("the store is away")
				}
				return nil
			}
		})
		if err := w.post(&wire.Ack{Cursor: "nonsense"}, &wire.Ack{Cursor: d.theCursor()}, &wire.Ping{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if got := w.stored(); got != before+1 {
			t.Errorf("the stored cursor went from %d to %d, want one further once the store was back", before, got)
		}
		d.leave()
		w.connect("r1", "alice/phone/android", "").want() // it was handled
	})
}

// A position may be given to another message when the store falls back, and an acknowledgement of the old one is late.
func TestPost_AcknowledgementOfAnOlderLineageFreesNothingNewer(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connect("r1", "alice/phone/android", "")
		w.toAlice()
		synctest.Wait()
		d.ack()
		time.Sleep(time.Second)
		snap, err := w.memory.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		w.toAlice() // the store will have lost it
		synctest.Wait()
		late := d.theCursor()
		d.leave()
		if err := w.memory.Restore(snap); err != nil {
			t.Fatal(err)
		}
		b := w.toAlice() // at its position
		if err := w.post(&wire.Ack{Cursor: late}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.connect("r1", "alice/phone/android", "").want(b)
	})
}

func TestPost_RefusesWhatItCannotTake(t *testing.T) {
	many := make([]wire.Frame, MaxPost+1)
	for i := range many {
		many[i] = &wire.Ping{}
	}
	cases := []struct {
		name   string
		token  string
		frames []wire.Frame
		kind   push.Kind
		code   string
	}{
		{"a bad token", "nonsense", nil, push.KindUnauthenticated, "token_refused"},
		{"a product that is not there", "alice/phone/android/1h/other", nil, push.KindForbidden, "forbidden"},
		{"a connect", "alice/phone/android", []wire.Frame{&wire.Connect{}}, push.KindInvalid, wire.CodeUnexpected},
		{"a pong", "alice/phone/android", []wire.Frame{&wire.Pong{}}, push.KindInvalid, wire.CodeUnexpected},
		{"too many", "alice/phone/android", many, push.KindInvalid, "too_many_frames"},
		{"a refresh without a session", "alice/phone/android", []wire.Frame{&wire.Refresh{Token: "x"}}, push.KindConflict, "no_session"},
	}
	inWorld(t, oneRoom, nil, func(w *world) {
		for _, c := range cases {
			err := w.rooms["r1"].Post(w.ctx, c.token, c.frames)
			if push.KindOf(err) != c.kind || code(err) != c.code {
				t.Errorf("%s: got %v, want %s", c.name, err, c.code)
			}
		}
	})
}

func TestPost_CountsInTheFramesOfItsSession(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		d := w.connectOver(transport.SSE, "r1", "alice/phone/android", "")
		for range 3 { // a second has room for twenty
			time.Sleep(time.Second)
			if err := w.post(slices.Repeat([]wire.Frame{&wire.Ping{}}, MaxPost)...); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.post(&wire.Ping{}); code(err) != "flood" {
			t.Errorf("a frame too many was answered with %v, want flood", err)
		}
		synctest.Wait()
		if got := d.closedWith(); got != wire.CloseFlood {
			t.Errorf("the session was closed with %v, want flood", got)
		}
	})
}

// slowTokens judges when it is told to.
type slowTokens struct {
	tokens
	wait <-chan struct{}
}

func (s slowTokens) Verify(ctx context.Context, token string) (auth.Identity, error) {
	select {
	case <-s.wait:
	case <-ctx.Done():
		return auth.Identity{}, push.Errorf(push.KindUnavailable, "keys_unavailable", "the keys could not be had")
	}
	return s.tokens.Verify(ctx, token)
}

func TestPost_BoundsHowManyAreUnderWay(t *testing.T) {
	var wait chan struct{}
	tune := func(_ *world, c *Config) {
		wait = make(chan struct{})
		c.Posts, c.Tokens = 3, slowTokens{wait: wait}
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		errs := make(chan error, 3)
		for range 3 {
			go func() { errs <- w.post(&wire.Ping{}) }()
		}
		synctest.Wait()
		err := w.post(&wire.Ping{})
		if e := asError(err); e == nil || e.Kind != push.KindUnavailable || e.After == 0 {
			t.Errorf("the fourth was answered with %v, want unavailable and when to come back", err)
		}
		close(wait)
		for range 3 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if err := w.post(&wire.Ping{}); err != nil {
			t.Errorf("once they were done: %v", err)
		}
	})
}

func TestPost_BoundsWhatWaitsForTheStore(t *testing.T) {
	var l looseAcks
	put := func(device, n int) bool {
		of := register.Key{Product: product, User: "alice", Device: push.DeviceID(strconv.Itoa(device))}
		as := make([]looseAck, n)
		for i := range as {
			as[i].Ack = saver.Ack{UserRef: saver.UserRef{Product: of.Product, Shards: shards, User: of.User}, Device: of.Device}
		}
		return l.put(of, as...)
	}
	if !put(0, maxLooseOfOne) || put(0, 1) || !put(0, 0) {
		t.Errorf("want room for exactly %d of one device", maxLooseOfOne)
	}
	for i := 1; i <= maxLoose-maxLooseOfOne; i++ {
		if !put(i, 1) {
			t.Fatalf("number %d finds no room among %d", i, len(l.acks))
		}
	}
	if put(maxLoose, 1) {
		t.Errorf("%d acknowledgements wait, want at most %d", len(l.acks), maxLoose)
	}
	all := l.take()
	if len(all) != maxLoose || !put(0, maxLooseOfOne) {
		t.Errorf("%d were taken, want all, and then room", len(all))
	}
	l.putBack(all)
	if len(l.acks) != maxLoose || put(0, 1) {
		t.Errorf("%d wait after those that failed came back, want %d", len(l.acks), maxLoose)
	}
}

// The device has no session, and a store that is slow.
func TestPost_OneDeviceTakesNoRoomFromOthers(t *testing.T) {
	inWorld(t, oneRoom, nil, func(w *world) {
		w.connect("r1", "alice/phone/android", "").leave()
		w.connect("r1", "bob/phone/android", "").leave()
		synctest.Wait()
		cursorOf := func(user push.UserID) *wire.Ack {
			owner := push.OwnerOf(product, user, "phone")
			return &wire.Ack{Cursor: string(push.AppendCursor(nil, owner, push.Cursor{}))}
		}
		flood := slices.Repeat([]wire.Frame{cursorOf("alice")}, MaxPost)
		for i := range 10 * maxLoose / MaxPost {
			if err := w.post(flood...); i > 0 && code(err) != "overloaded" {
				t.Fatalf("got %v, want that alice waits until the store has had hers", err)
			}
		}
		if err := w.rooms["r1"].Post(w.ctx, "bob/phone/android", []wire.Frame{cursorOf("bob")}); err != nil {
			t.Errorf("bob, who sent nothing else: %v", err)
		}
	})
}

func TestEvents_AreToldFromSessionsAndBesideThem(t *testing.T) {
	var mu sync.Mutex
	var got []Event
	tune := func(_ *world, c *Config) {
		c.Events = func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e)
		}
	}
	inWorld(t, oneRoom, tune, func(w *world) {
		shown, clicked := wire.Event{Event: wire.Displayed, ID: 1 << 60, Time: 5}, wire.Event{Event: wire.Clicked, ID: 7}
		if err := w.post(&clicked); err != nil { // nobody is here
			t.Fatal(err)
		}
		d := w.connect("r1", "alice/phone/android", "")
		d.send(&shown)
		if err := w.post(&clicked, &shown); err != nil {
			t.Fatal(err)
		}
		refused := w.dial("r1")
		refused.freeze()
		refused.send(&wire.Ping{}) // is sent away, and goes on
		refused.send(&shown)
		refused.thaw()
		synctest.Wait()
		var what []wire.Event
		for _, e := range got {
			what = append(what, e.What)
			if e.Product != product || e.User != "alice" || e.Device != "phone" || e.Platform != push.PlatformAndroid {
				t.Errorf("an event is told of %+v on %v, want alice's phone", e.Key, e.Platform)
			}
		}
		if want := []wire.Event{clicked, shown, clicked, shown}; !slices.Equal(what, want) {
			t.Errorf("got events %+v, want %+v", what, want)
		}
	})
}
