package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

func ofUser(u push.UserID) catalog.RevocationTarget { return catalog.RevocationTarget{User: u} }

func ofDevice(u push.UserID, d push.DeviceID) catalog.RevocationTarget {
	return catalog.RevocationTarget{User: u, Device: d}
}

func ofToken(u push.UserID, id string) catalog.RevocationTarget {
	return catalog.RevocationTarget{User: u, TokenID: id}
}

func (h *harness) revoke(p push.ProductID, t catalog.RevocationTarget) catalog.Revocation {
	h.t.Helper()
	r, err := h.Catalog.Revoke(h.ctx, catalog.Revocation{Product: p, RevocationTarget: t})
	if err != nil {
		h.t.Fatalf("Revoke(%s, %+v): %v", p, t, err)
	}
	return r
}

// changes follows the changes from one on, so many at a time.
func (h *harness) changes(after catalog.Change, limit int) []catalog.Revocation {
	h.t.Helper()
	var all []catalog.Revocation
	for {
		some, err := h.Catalog.RevocationChanges(h.ctx, after, limit)
		if err != nil {
			h.t.Fatalf("RevocationChanges(%d, %d): %v", after, limit, err)
		}
		if len(some) > limit {
			h.t.Fatalf("RevocationChanges(%d, %d): got %d", after, limit, len(some))
		}
		for _, r := range some {
			if r.Change <= after {
				h.t.Errorf("change %d comes behind %d", r.Change, after)
			}
			after = r.Change
		}
		all = append(all, some...)
		if len(some) < limit {
			return all
		}
	}
}

func revocationKept(t *testing.T, h *harness) {
	h.create(shop)
	for _, target := range []catalog.RevocationTarget{
		ofUser("alice"), ofDevice("alice", "phone"), ofToken("alice", "t-1"), ofUser("bob\u00fc/\u4e2d"),
	} {
		got, err := h.Catalog.Revoke(h.ctx, catalog.Revocation{
			Product: shop, RevocationTarget: target, Reason: "stolen", At: 5, Until: 6, Lifted: true, Change: 7,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.At < 1000 || got.Until.Time().Sub(got.At.Time()) < catalog.DefaultTokenLifetime || got.Lifted || got.Change == 7 {
			t.Errorf("%+v: got %+v, want what the catalog sets", target, got)
		}
		want := catalog.Revocation{
			Product: shop, RevocationTarget: target, Reason: "stolen", At: got.At, Until: got.Until, Change: got.Change,
		}
		if got != want {
			t.Errorf("Revoke:\n got %+v\nwant %+v", got, want)
		}
		if all := h.changes(got.Change-1, 10); len(all) != 1 || all[0] != want {
			t.Errorf("RevocationChanges:\n got %+v\nwant %+v", all, want)
		}
	}
	_, err := h.Catalog.Revoke(h.ctx, catalog.Revocation{Product: game, RevocationTarget: ofUser("alice")})
	wantError(t, "revoking in no product", err, push.KindNotFound, "product_not_found")
}

func badRevocations(t *testing.T, h *harness) {
	h.create(shop)
	for _, test := range []struct {
		name string
		r    catalog.Revocation
	}{
		{"no user", catalog.Revocation{RevocationTarget: ofDevice("", "phone")}},
		{"a long user", catalog.Revocation{RevocationTarget: ofUser(push.UserID(strings.Repeat("u", 129)))}},
		{"a bad device", catalog.Revocation{RevocationTarget: ofDevice("alice", "a\n")}},
		{"a long token id", catalog.Revocation{RevocationTarget: ofToken("alice", strings.Repeat("t", 129))}},
		{"a bad token id", catalog.Revocation{RevocationTarget: ofToken("alice", "\xff")}},
		{"a device and a token id", catalog.Revocation{RevocationTarget: catalog.RevocationTarget{User: "a", Device: "b", TokenID: "c"}}},
		{"a long reason", catalog.Revocation{RevocationTarget: ofUser("alice"), Reason: strings.Repeat("r", 201)}},
		{"a bad reason", catalog.Revocation{RevocationTarget: ofUser("alice"), Reason: "a\x00"}},
	} {
		test.r.Product = shop
		_, err := h.Catalog.Revoke(h.ctx, test.r)
		wantError(t, test.name, err, push.KindInvalid, "bad_revocation")
	}
	if all := h.changes(0, 10); len(all) != 0 {
		t.Errorf("after refusals: got %+v", all)
	}
	for _, limit := range []int{-1, catalog.MaxChanges + 1} {
		_, err := h.Catalog.RevocationChanges(h.ctx, 0, limit)
		wantError(t, "RevocationChanges", err, push.KindInvalid, "bad_page")
	}
}

func revocationLasts(t *testing.T, h *harness) {
	if _, err := h.Catalog.CreateProduct(h.ctx, catalog.Product{ID: shop, TokenLifetime: 2 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	first := h.revoke(shop, ofUser("alice"))
	if got := first.Until.Time().Sub(first.At.Time()); got < 2*time.Hour || got > 4*time.Hour {
		t.Errorf("it lasts %v, want a little more than tokens live", got)
	}
	h.Elapse(time.Minute)
	second := h.revoke(shop, ofUser("alice"))
	if second.At != first.At.Add(time.Minute) || second.Until != first.Until.Add(time.Minute) {
		t.Errorf("revoked again: got %+v after %+v, want it a minute later", second, first)
	}
	h.Elapse(-time.Hour)
	if third := h.revoke(shop, ofUser("alice")); third.At != second.At || third.Until != second.Until {
		t.Errorf("revoked under a clock that was put back: got %+v, want it to refuse what %+v refused", third, second)
	}
	if all := h.changes(0, 10); len(all) != 1 {
		t.Errorf("got %d revocations of one target, want the latest alone", len(all))
	}
}

func revocationLifted(t *testing.T, h *harness) {
	h.create(shop, game)
	device := h.revoke(shop, ofDevice("alice", "phone"))
	user := h.revoke(shop, ofUser("alice"))
	for p, target := range map[push.ProductID]catalog.RevocationTarget{shop: ofUser("bob"), game: ofUser("alice"), "none": ofUser("alice")} {
		err := h.Catalog.LiftRevocation(h.ctx, p, target)
		wantError(t, "lifting what is not there", err, push.KindNotFound, "revocation_not_found")
	}
	if err := h.Catalog.LiftRevocation(h.ctx, shop, ofUser("alice")); err != nil {
		t.Fatal(err)
	}
	all := h.changes(0, 10)
	if len(all) != 2 || all[0] != device || !all[1].Lifted || all[1].RevocationTarget != ofUser("alice") || all[1].Change <= user.Change {
		t.Errorf("after lifting: got %+v, want the device's as it was and then the user's, lifted", all)
	}
	err := h.Catalog.LiftRevocation(h.ctx, shop, ofUser("alice"))
	wantError(t, "lifting again", err, push.KindNotFound, "revocation_not_found")
	h.Elapse(time.Second)
	again := h.revoke(shop, ofUser("alice"))
	if all := h.changes(all[1].Change, 10); len(all) != 1 || all[0] != again || again.Lifted {
		t.Errorf("revoked anew: got %+v, want %+v", all, again)
	}
}

func revocationsInChanges(t *testing.T, h *harness) {
	h.create("a", shop)
	var want []string
	for i := range 7 {
		h.revoke([]push.ProductID{"a", shop}[i%2], ofUser(push.UserID(fmt.Sprint("u", i))))
		want = append(want, fmt.Sprint("u", i))
	}
	h.revoke("a", ofUser("u0")) // goes to the end
	want = append(want[1:], "u0")
	for _, limit := range []int{1, 3, 7, 8} {
		var got []string
		for _, r := range h.changes(0, limit) {
			got = append(got, string(r.User))
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d at a time: got %v, want %v", limit, got, want)
		}
	}
}

// revocationsListed holds the list to those in force of one product, in their order, in pages of any size.
func revocationsListed(t *testing.T, h *harness) {
	if _, err := h.Catalog.CreateProduct(h.ctx, catalog.Product{ID: game, TokenLifetime: 48 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Catalog.CreateProduct(h.ctx, catalog.Product{ID: shop, TokenLifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	h.create("shop2")
	h.revoke(shop, ofUser("early"))
	h.revoke(game, ofUser("early"))
	h.Elapse(24 * time.Hour)
	want := []catalog.Revocation{
		h.revoke(shop, ofUser("alice")), h.revoke(shop, ofToken("alice", "t-1")), h.revoke(shop, ofDevice("alice", "pad")),
		h.revoke(shop, ofDevice("alice", "phone")), h.revoke(shop, ofUser("alice2")), h.revoke(shop, ofUser("bob\u00fc/\u4e2d")),
	}
	h.revoke(shop, ofUser("cathy"))
	if err := h.Catalog.LiftRevocation(h.ctx, shop, ofUser("cathy")); err != nil {
		t.Fatal(err)
	}
	h.revoke("shop2", ofUser("alice"))
	for _, limit := range []int{1, 2, len(want) - 1, len(want), 100} {
		var got []catalog.Revocation
		page := catalog.Page{Limit: limit}
		for {
			l, err := h.Catalog.Revocations(h.ctx, shop, page)
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Items) > limit || l.Next != "" && len(l.Items) < limit {
				t.Fatalf("%d at a time: a page has %d, and next is %q", limit, len(l.Items), l.Next)
			}
			got = append(got, l.Items...)
			if page.After = l.Next; page.After == "" {
				break
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d at a time:\n got %+v\nwant %+v", limit, got, want)
		}
	}
	if l, err := h.Catalog.Revocations(h.ctx, game, catalog.Page{}); err != nil || len(l.Items) != 1 {
		t.Errorf("where tokens live longer: got %+v, %v, want one", l, err)
	}
	// The place where a page ended need not be there any more.
	after, err := h.Catalog.Revocations(h.ctx, shop, catalog.Page{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Catalog.LiftRevocation(h.ctx, shop, want[1].RevocationTarget); err != nil {
		t.Fatal(err)
	}
	l, err := h.Catalog.Revocations(h.ctx, shop, catalog.Page{After: after.Next})
	if err != nil || !reflect.DeepEqual(l.Items, want[2:]) {
		t.Errorf("behind one that was lifted: got %+v, %v, want %+v", l.Items, err, want[2:])
	}
	_, err = h.Catalog.Revocations(h.ctx, "none", catalog.Page{})
	wantError(t, "of no product", err, push.KindNotFound, "product_not_found")
	for _, page := range []catalog.Page{{Limit: -1}, {Limit: catalog.MaxPage + 1}, {After: "!"}, {After: "YQ"}} {
		_, err := h.Catalog.Revocations(h.ctx, shop, page)
		wantError(t, fmt.Sprintf("%+v", page), err, push.KindInvalid, "bad_page")
	}
}

// endedAreSwept lets revocations end, and looks whether others clear them away.
func endedAreSwept(t *testing.T, h *harness) {
	if _, err := h.Catalog.CreateProduct(h.ctx, catalog.Product{ID: shop, TokenLifetime: time.Minute}); err != nil {
		t.Fatal(err)
	}
	h.create(game)
	const n = 50
	for i := range n {
		h.revoke(shop, ofUser(push.UserID(fmt.Sprint("old", i))))
	}
	stays := h.revoke(game, ofUser("alice")) // tokens live longer there
	h.Elapse(24 * time.Hour)
	err := h.Catalog.LiftRevocation(h.ctx, shop, ofUser("old0"))
	wantError(t, "lifting what has ended", err, push.KindNotFound, "revocation_not_found")
	for i := range n {
		h.revoke(shop, ofUser(push.UserID(fmt.Sprint("new", i))))
	}
	found, old := false, 0
	for _, r := range h.changes(0, 10) {
		found = found || r == stays
		if strings.HasPrefix(string(r.User), "old") {
			old++
		}
	}
	if !found {
		t.Error("one that has not ended is gone")
	}
	if old > n/2 {
		t.Errorf("%d of %d that have ended are still there after as many were added", old, n)
	}
}

// raceToRevoke has many revoke at once, some the same: all of them are there, each once.
func raceToRevoke(t *testing.T, h *harness) {
	h.create(shop)
	var all sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		all.Go(func() {
			for j := range 5 {
				target := ofUser(push.UserID(fmt.Sprint("u", j)))
				if i%2 == 0 {
					target = ofToken("alice", fmt.Sprint(i, "-", j))
				}
				if _, err := h.Catalog.Revoke(context.WithoutCancel(h.ctx), catalog.Revocation{Product: shop, RevocationTarget: target}); err != nil {
					errs[i] = err
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	got := map[catalog.RevocationTarget]bool{}
	for _, r := range h.changes(0, 7) {
		if got[r.RevocationTarget] {
			t.Errorf("%+v is there twice", r.RevocationTarget)
		}
		got[r.RevocationTarget] = true
	}
	if len(got) != 8*5+5 {
		t.Errorf("got %d revocations, want 45", len(got))
	}
}
