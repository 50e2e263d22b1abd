package auth

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

// addAPIKey makes a key of the shop.
func (w *world) addAPIKey(t *testing.T, seed byte, k catalog.APIKey) (catalog.APIKey, catalog.APIKeyText) {
	t.Helper()
	if k.Product == "" {
		k.Product = shop
	}
	if k.Scopes == nil {
		k.Scopes = []catalog.Scope{catalog.ScopeMessagesWrite}
	}
	k, text, err := catalog.NewAPIKey(rand.NewChaCha8([32]byte{seed}), k)
	if err != nil {
		t.Fatal(err)
	}
	if k, err = w.cache.AddAPIKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return k, text
}

func TestAPIKeys_RightKeyIsItsProducts(t *testing.T) {
	w := newWorld(t)
	k, text := w.addAPIKey(t, 1, catalog.APIKey{Name: "backend"})
	for _, header := range []string{"Bearer " + string(text), "bearer " + string(text), "BEARER  " + string(text)} {
		got, err := w.apiKeys.Check(t.Context(), header)
		if err != nil {
			t.Fatal(err)
		}
		if got.Product.ID != shop || got.KeyID != k.ID || got.Name != "backend" || !slices.Equal(got.Scopes, k.Scopes) {
			t.Errorf("got %+v, want %+v", got, k)
		}
	}
}

func TestAPIKeys_UnknownAndWrongCannotBeToldApart(t *testing.T) {
	w := newWorld(t)
	_, text := w.addAPIKey(t, 1, catalog.APIKey{})
	_, other := w.addAPIKey(t, 2, catalog.APIKey{})
	revoked, revokedText := w.addAPIKey(t, 3, catalog.APIKey{})
	if _, err := w.cache.RevokeAPIKey(t.Context(), shop, revoked.ID); err != nil {
		t.Fatal(err)
	}
	cut := len("cak_") + 16 + 1
	var shown []string
	for _, test := range []struct {
		name, header string
		reason       Reason
	}{
		{"nothing", "", ReasonMissing},
		{"no credential", "Bearer ", ReasonMissing},
		{"another scheme", "Basic " + string(text), ReasonMissing},
		{"no scheme", string(text), ReasonMissing},
		{"two credentials", "Bearer " + string(text) + " " + string(text), ReasonMissing},
		{"no key", "Bearer hello", ReasonMalformed},
		{"another prefix", "Bearer dak" + string(text)[3:], ReasonMalformed},
		{"a short key", "Bearer " + string(text)[:len(text)-1], ReasonMalformed},
		{"a long key", "Bearer " + string(text) + "A", ReasonMalformed},
		{"no base64", "Bearer " + string(text)[:len(text)-1] + "*", ReasonMalformed},
		{"bits left over", "Bearer " + looseBitsOfKey(string(text)), ReasonMalformed},
		{"an unknown id", "Bearer cak_aaaaaaaaaaaaaaaa" + string(text)[cut-1:], ReasonUnknownKey},
		{"another key's secret", "Bearer " + string(text)[:cut] + string(other)[cut:], ReasonSignature},
		{"a revoked key's id", "Bearer " + string(revokedText)[:cut] + string(other)[cut:], ReasonSignature},
	} {
		_, err := w.apiKeys.Check(t.Context(), test.header)
		t.Run(test.name, func(t *testing.T) {
			wantRefusal(t, err, test.reason, push.KindUnauthenticated, CodeUnauthenticated)
			var e *push.Error
			errors.As(err, &e)
			shown = append(shown, fmt.Sprint(e))
			if strings.Contains(err.Error(), string(text)[cut:]) {
				t.Error("the error shows the key")
			}
		})
	}
	if len(slices.Compact(shown)) != 1 {
		t.Errorf("what is shown differs: %q", slices.Compact(shown))
	}
}

// looseBitsOfKey returns another text that a lenient decoder reads as the same secret.
func looseBitsOfKey(text string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	at := strings.IndexByte(digits, text[len(text)-1])
	return text[:len(text)-1] + string(digits[at^1])
}

func TestAPIKeys_RightSecretIsToldWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	revoked, revokedText := w.addAPIKey(t, 1, catalog.APIKey{})
	_, shortText := w.addAPIKey(t, 2, catalog.APIKey{Expires: push.Milli(noon.Add(time.Hour))})
	_, gameText := w.addAPIKey(t, 3, catalog.APIKey{Product: game})
	check := func(text catalog.APIKeyText) error {
		_, err := w.apiKeys.Check(ctx, "Bearer "+string(text))
		return err
	}
	for _, text := range []catalog.APIKeyText{revokedText, shortText, gameText} {
		if err := check(text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.store.RevokeAPIKey(ctx, shop, revoked.ID); err != nil { // as another node does
		t.Fatal(err)
	}
	w.clock.Advance(time.Second)
	wantRefusal(t, check(revokedText), ReasonRevokedKey, push.KindUnauthenticated, CodeKeyRevoked)

	w.clock.Advance(time.Hour - time.Second - time.Millisecond)
	if err := check(shortText); err != nil {
		t.Fatalf("right before its end: %v", err)
	}
	w.clock.Advance(time.Millisecond)
	wantRefusal(t, check(shortText), ReasonExpired, push.KindUnauthenticated, CodeKeyExpired)

	if _, err := w.cache.UpdateProduct(ctx, catalog.Product{ID: game, Disabled: true}); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, check(gameText), ReasonDisabledProduct, push.KindForbidden, CodeProductDisabled)
}

func TestAPIKeys_CatalogThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	w := newWorld(t)
	_, text := w.addAPIKey(t, 1, catalog.APIKey{})
	a, err := NewAPIKeys(APIConfig{Keys: failingKeys{}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Check(t.Context(), "Bearer "+string(text))
	if ReasonOf(err) != ReasonNone || push.KindOf(err) != push.KindUnavailable {
		t.Fatalf("got %v, want KindUnavailable and no reason", err)
	}
	if _, err := NewAPIKeys(APIConfig{}); err == nil {
		t.Error("a check without keys was made")
	}
}

func TestPrincipal_RequireFollowsScopes(t *testing.T) {
	for _, test := range []struct {
		has   []catalog.Scope
		needs catalog.Scope
		ok    bool
	}{
		{[]catalog.Scope{catalog.ScopeMessagesWrite}, catalog.ScopeMessagesWrite, true},
		{[]catalog.Scope{catalog.ScopeMessagesWrite}, catalog.ScopeMessagesRead, false},
		{[]catalog.Scope{catalog.ScopeUsersRead, catalog.ScopeMessagesRead}, catalog.ScopeMessagesRead, true},
		{[]catalog.Scope{catalog.ScopeAll}, catalog.ScopeUsersWrite, true},
		{nil, catalog.ScopeUsersWrite, false},
	} {
		err := Principal{Scopes: test.has}.Require(test.needs)
		if test.ok && err != nil {
			t.Errorf("%v, %s: %v", test.has, test.needs, err)
		}
		if !test.ok {
			wantRefusal(t, err, ReasonScope, push.KindForbidden, CodeScopeMissing)
		}
	}
}

func TestAPIKeys_CheckAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	_, text := w.addAPIKey(t, 1, catalog.APIKey{})
	header, ctx := "Bearer "+string(text), t.Context()
	if got := testing.AllocsPerRun(200, func() { w.apiKeys.Check(ctx, header) }); got > 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestCheckSecret_RefusesWhatCanBeGuessed(t *testing.T) {
	for _, test := range []struct {
		secret string
		ok     bool
	}{
		{"", false},
		{"short", false},
		{"0123456789abcdefghijklmnopqrstu", false}, // 31 bytes
		{strings.Repeat("a", 64), false},
		{strings.Repeat("abcdefgh", 8), false},
		{strings.Repeat("correct-horse-", 5)[:60], false},
		{"aabbccddeeffgaabbcaddeefffggaaaabb", false},
		{"dev-Zk3qT9vX1mB7nL5cR8wY2dH6jF0sPgKa", false},
		{"DEV-Zk3qT9vX1mB7nL5cR8wY2dH6jF0sPgKa", false},
		{"Zk3qT9vX1mB7nL5cR8wY2dH6jF0sPgKa", true},
		{"1f0c9b7a3e5d8642f1c0b9a7e3d58624a", true},
		{"u8bF0vQ5l1xk8Wc2mJ7oZr4tYp9sHd6gNa3eIi1LbKE=", true},
	} {
		err := CheckSecret(test.secret)
		if test.ok != (err == nil) {
			t.Errorf("%q: got %v, want ok %v", test.secret, err, test.ok)
		}
		if err == nil {
			continue
		}
		if push.KindOf(err) != push.KindInvalid || !strings.Contains(err.Error(), "openssl rand -base64 32") {
			t.Errorf("%q: the error does not help: %v", test.secret, err)
		}
		if len(test.secret) > 5 && strings.Contains(err.Error(), test.secret[:6]) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestEqualSecret_NothingEqualsAnAbsentOne(t *testing.T) {
	for _, test := range []struct {
		got, want string
		equal     bool
	}{
		{"abc", "abc", true}, {"abc", "abd", false}, {"abc", "abcd", false}, {"", "abc", false}, {"", "", false}, {"x", "", false},
	} {
		if got := EqualSecret(test.got, test.want); got != test.equal {
			t.Errorf("EqualSecret(%q, %q): got %v", test.got, test.want, got)
		}
	}
}
