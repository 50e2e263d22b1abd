package auth

import (
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

func (w *world) revoke(t testing.TB, target catalog.RevocationTarget) {
	t.Helper()
	if _, err := w.cache.Revoke(t.Context(), catalog.Revocation{Product: shop, RevocationTarget: target}); err != nil {
		t.Fatal(err)
	}
}

func TestVerifier_RefusesWhatWasRevoked(t *testing.T) {
	k := signing()[catalog.HS256]
	all := catalog.RevocationTarget{User: "alice"}
	phone := catalog.RevocationTarget{User: "alice", Device: "phone"}
	byID := catalog.RevocationTarget{User: "alice", TokenID: "t-1"}
	at := noon.Unix()
	for _, test := range []struct {
		name   string
		target catalog.RevocationTarget
		claims object
		want   bool
	}{
		{"issued before", all, goodClaims().with("iat", at-60), true},
		{"issued in the second of it", all, goodClaims().with("iat", at), true},
		{"issued after it", all, goodClaims().with("iat", at+1), false},
		{"no word of when", all, goodClaims(), true},
		{"issued in 1970", all, goodClaims().with("iat", 0).with("exp", at+60), true},
		{"its device, issued before", phone, goodClaims().with("iat", at), true},
		{"its device, issued after", phone, goodClaims().with("iat", at+1), false},
		{"another device", phone, goodClaims().with("did", "web"), false},
		{"its id", byID, goodClaims().with("jti", "t-1"), true},
		{"its id, whenever it was issued", byID, goodClaims().with("jti", "t-1").with("iat", at+1), true},
		{"another id", byID, goodClaims().with("jti", "t-2"), false},
		{"no id", byID, goodClaims(), false},
		{"that id of another user", byID, goodClaims().with("jti", "t-1").with("sub", "bob"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.revoke(t, test.target)
			if test.name == "issued in 1970" { // otherwise it is refused for its length
				_, err := w.cache.UpdateProduct(t.Context(), catalog.Product{ID: shop, TokenLifetime: 100 * 365 * 24 * time.Hour})
				if err != nil {
					t.Fatal(err)
				}
			}
			id, err := w.verify.Verify(t.Context(), sign(t, k, header(k), test.claims))
			if !test.want {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			wantRefusal(t, err, ReasonRevoked, push.KindForbidden, CodeRevoked)
			if id.User != "" {
				t.Errorf("refused, and still named: %+v", id)
			}
		})
	}
}

func TestVerifier_RecheckSeesWhatWasRevokedAfterVerify(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	id, err := w.verify.Verify(t.Context(), sign(t, k, header(k), goodClaims().with("jti", "t-1")))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.verify.Recheck(t.Context(), id); err != nil {
		t.Fatalf("nothing was revoked: %v", err)
	}
	w.revoke(t, catalog.RevocationTarget{User: "alice", TokenID: "t-1"})
	wantRefusal(t, w.verify.Recheck(t.Context(), id), ReasonRevoked, push.KindForbidden, CodeRevoked)
	err = w.cache.LiftRevocation(t.Context(), shop, catalog.RevocationTarget{User: "alice", TokenID: "t-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.verify.Recheck(t.Context(), id); err != nil {
		t.Errorf("it was lifted: %v", err)
	}
}

// A token can be good until the revocation ends at the latest, whatever the clocks of nodes and products say.
func TestVerifier_RevocationOutlivesEveryTokenThatItRefuses(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	longest := goodClaims().with("iat", noon.Unix()).with("exp", noon.Add(catalog.DefaultTokenLifetime).Unix())
	token := sign(t, k, header(k), longest)
	w.revoke(t, catalog.RevocationTarget{User: "alice"})
	for w.clock.Now().Before(noon.Add(catalog.DefaultTokenLifetime + 2*time.Hour)) {
		if _, err := w.verify.Verify(t.Context(), token); err == nil {
			t.Fatalf("the token was good again %v later", w.clock.Now().Sub(noon))
		}
		w.clock.Advance(10 * time.Minute)
	}
}
