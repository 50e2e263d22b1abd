package room

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/auth"
	"carillon/server/push"
	"carillon/server/wire"
)

// judge is tokens with a list of those that were revoked, which a test can change at each moment of a judgement. The id of a
// token is its whole text.
type judge struct {
	tokens
	mu      sync.Mutex
	revoked map[string]bool // token ids, or users
	down    bool            // Recheck cannot be answered
	at      func(moment string)
}

func (j *judge) pass(moment string) {
	j.mu.Lock()
	f := j.at
	j.mu.Unlock()
	if f != nil {
		f(moment)
	}
}

func (j *judge) set(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
}

func (j *judge) judge(id auth.Identity) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.revoked[id.TokenID] || j.revoked[string(id.User)] {
		return push.Errorf(push.KindForbidden, auth.CodeRevoked, "revoked")
	}
	return nil
}

func (j *judge) Verify(ctx context.Context, token string) (auth.Identity, error) {
	id, err := j.tokens.Verify(ctx, token)
	if err == nil {
		id.TokenID = token
		err = j.judge(id)
	}
	j.pass("verified")
	return id, err
}

func (j *judge) Recheck(_ context.Context, id auth.Identity) error {
	j.pass("in the book")
	j.mu.Lock()
	down := j.down
	j.mu.Unlock()
	if down {
		return push.Errorf(push.KindUnavailable, "catalog_unavailable", "down")
	}
	err := j.judge(id)
	j.pass("rechecked")
	return err
}

// inCourt is inWorld with a judge.
func inCourt(t *testing.T, f func(w *world, j *judge)) {
	t.Helper()
	j := &judge{revoked: make(map[string]bool)}
	inWorld(t, oneRoom, func(_ *world, c *Config) { c.Tokens = j }, func(w *world) { f(w, j) })
}

func (w *world) kick(k push.Kick) int {
	w.t.Helper()
	n, err := w.rooms["r1"].Kick(w.ctx, product, "alice", k)
	if err != nil {
		w.t.Errorf("Kick: %v", err)
	}
	return n
}

// goneWith holds a device to the end of its session, and the register to having nobody.
func (w *world) goneWith(d *device, want wire.CloseCode) {
	w.t.Helper()
	synctest.Wait()
	if got := d.closedWith(); got != want {
		w.t.Errorf("closed with %v, want %v", got, want)
	}
	if ks := framesOf[*wire.Kick](d); len(ks) != 1 || ks[0].Code != want || ks[0].Reason != want.String() || ks[0].Detail == "" {
		w.t.Errorf("got kicks %+v, want one that says %v and more", ks, want)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	if n, err := w.reg.Count(w.ctx, product); err != nil || n != 0 {
		w.t.Errorf("the register counts %d sessions (%v), want none", n, err)
	}
}

const alicesToken = "alice/phone/android"

// A revocation is two steps: it is noted, and then the room ends what it holds. Wherever the two fall while a device is
// connecting, no session is left.
func TestRoom_RevocationAtEachMomentOfAConnectLeavesNoSession(t *testing.T) {
	moments := []string{"before", "verified", "in the book", "rechecked", "opening", "opened", "welcomed"}
	for _, target := range []string{"alice", alicesToken} {
		for i, noted := range moments {
			for _, ended := range moments[i:] {
				t.Run(fmt.Sprintf("%s/noted %s/ended %s", strings.ReplaceAll(target, "/", "-"), noted, ended), func(t *testing.T) {
					inCourt(t, func(w *world, j *judge) {
						k := push.Kick{Kind: push.KickRevoked}
						if target == alicesToken {
							k.TokenID = target
						}
						at := func(moment string) {
							if moment == noted {
								j.set(func() { j.revoked[target] = true })
							}
							if moment == ended {
								w.kick(k)
							}
						}
						j.at = at
						w.saver.set(func(g *gate) {
							g.onOpen = func() error { at("opening"); return nil }
							g.after = func() { at("opened") }
						})
						at("before")
						d := w.connect("r1", alicesToken, "")
						w.saver.set(func(g *gate) { g.after = nil })
						at("welcomed")
						w.goneWith(d, wire.CloseRevoked)
						w.publish(post{to: []push.UserID{"alice"}, body: `1`})
						synctest.Wait()
						d.want()
					})
				})
			}
		}
	}
}

// The same for a token that a live session takes up: while another one is revoked, and when it is the new one itself.
func TestRoom_RevocationAtEachMomentOfARefreshLeavesNoSession(t *testing.T) {
	const second = alicesToken + "/1h"
	moments := []string{"before", "verified", "in the book", "rechecked", "after"}
	for i, noted := range moments {
		for _, ended := range moments[i:] {
			t.Run("noted "+noted+"/ended "+ended, func(t *testing.T) {
				inCourt(t, func(w *world, j *judge) {
					d := w.connect("r1", alicesToken, "")
					at := func(moment string) {
						if moment == noted {
							j.set(func() { j.revoked[second] = true })
						}
						if moment == ended {
							w.kick(push.Kick{Kind: push.KickRevoked, TokenID: second})
						}
					}
					j.set(func() { j.at = at })
					at("before")
					d.send(&wire.Refresh{Token: second})
					synctest.Wait()
					at("after")
					w.goneWith(d, wire.CloseRevoked)
				})
			})
		}
	}
}

func TestRoom_RefreshThatCannotBeJudgedAgainEndsTheSession(t *testing.T) {
	inCourt(t, func(w *world, j *judge) {
		d := w.connect("r1", alicesToken, "")
		j.set(func() { j.down = true })
		d.send(&wire.Refresh{Token: alicesToken + "/1h"})
		synctest.Wait()
		if got := d.closedWith(); got != wire.CloseOverloaded {
			t.Errorf("closed with %v, want overloaded: the session may be under a token that was revoked meanwhile", got)
		}
	})
}

func TestRoom_KickEndsWhatItNamesAndTellsWhy(t *testing.T) {
	cases := []struct {
		name string
		kick push.Kick
		ends []string // of phone, web and bob
	}{
		{"the user", push.Kick{}, []string{"phone", "web"}},
		{"a device", push.Kick{Device: "phone"}, []string{"phone"}},
		{"a token", push.Kick{TokenID: "alice/web/web"}, []string{"web"}},
		{"a token of that device", push.Kick{Device: "web", TokenID: "alice/web/web"}, []string{"web"}},
		{"a token of another device", push.Kick{Device: "phone", TokenID: "alice/web/web"}, nil},
		{"a device that is not there", push.Kick{Device: "tv"}, nil},
		{"with a reason", push.Kick{Device: "web", Reason: "you moved"}, []string{"web"}},
		{"for good", push.Kick{Kind: push.KickRevoked}, []string{"phone", "web"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inCourt(t, func(w *world, _ *judge) {
				devices := map[string]*device{
					"phone": w.connect("r1", "alice/phone/android", ""), "web": w.connect("r1", "alice/web/web", ""),
					"bob": w.connect("r1", "bob/phone/ios", ""),
				}
				if n := w.kick(c.kick); n != len(c.ends) {
					t.Errorf("%d ended, want %d", n, len(c.ends))
				}
				synctest.Wait()
				want := map[string]wire.CloseCode{}
				for _, name := range c.ends {
					want[name] = map[push.KickKind]wire.CloseCode{push.KickKicked: wire.CloseKicked, push.KickRevoked: wire.CloseRevoked}[c.kick.Kind]
				}
				for name, d := range devices {
					if got := d.closedWith(); got != want[name] {
						t.Errorf("%s: closed with %v, want %v", name, got, want[name])
					}
					for _, k := range framesOf[*wire.Kick](d) {
						if c.kick.Reason != "" && k.Detail != c.kick.Reason {
							t.Errorf("%s was told %q, want %q", name, k.Detail, c.kick.Reason)
						}
					}
				}
				if n := w.kick(c.kick); n != 0 {
					t.Errorf("%d ended at the second call", n)
				}
			})
		})
	}
}

// What waits for a client that is kicked is not sent any more, nor passed over: another session of it begins with that.
func TestRoom_KickedGetsNothingMoreAndLosesNothing(t *testing.T) {
	for _, kind := range []push.KickKind{push.KickKicked, push.KickRevoked} {
		inCourt(t, func(w *world, _ *judge) {
			d := w.connect("r1", alicesToken, "")
			first := w.publish(post{to: []push.UserID{"alice"}, body: `1`})
			synctest.Wait()
			d.freeze()
			second := w.publish(post{to: []push.UserID{"alice"}, body: `2`})
			w.publish(post{to: []push.UserID{"alice"}, body: `3`, live: true})
			synctest.Wait()
			w.kick(push.Kick{Kind: kind})
			d.thaw()
			synctest.Wait()
			d.want(first)
			for _, c := range framesOf[*wire.Cursor](d) {
				if c.Reason == wire.CursorGoodbye {
					t.Error("a kicked client was sent a cursor, which stands behind what it was not sent")
				}
			}
			w.connect("r1", alicesToken, d.theCursor()).want(second)
		})
	}
}

func TestRoom_KickedClientThatDoesNotReadIsCutWithinASecond(t *testing.T) {
	inCourt(t, func(w *world, _ *judge) {
		d := w.connect("r1", alicesToken, "")
		d.freeze()
		w.publish(post{to: []push.UserID{"alice"}, body: `1`})
		w.kick(push.Kick{})
		time.Sleep(time.Second)
		synctest.Wait()
		if got := d.closedWith(); got != wire.CloseKicked {
			t.Errorf("closed with %v after a second, want kicked", got)
		}
	})
}

func TestRoom_KickWithoutAPolicyDoesNotSayThatItIsDone(t *testing.T) {
	broken := push.Errorf(push.KindUnavailable, "catalog_unavailable", "down")
	fail := false
	inWorld(t, oneRoom, func(_ *world, c *Config) {
		policy := c.Policy
		c.Policy = func(ctx context.Context, p push.ProductID) (Policy, error) {
			if fail {
				return Policy{}, broken
			}
			return policy(ctx, p)
		}
	}, func(w *world) {
		d := w.connect("r1", alicesToken, "")
		fail = true
		if _, err := w.rooms["r1"].Kick(w.ctx, product, "alice", push.Kick{}); push.KindOf(err) != push.KindUnavailable {
			t.Errorf("got %v, want that it could not be done", err)
		}
		fail = false
		if n, err := w.rooms["r1"].Kick(w.ctx, "other", "alice", push.Kick{}); n != 0 || err != nil {
			t.Errorf("no such product: got %d, %v", n, err)
		}
		if d.closedWith() != 0 {
			t.Error("the session ended all the same")
		}
	})
}
