package auth

import (
	"fmt"
	"testing"
	"time"

	"carillon/server/push"
)

// A token is judged the same whether its header was seen before or not, however it is damaged.
func TestVerifier_ARememberedHeaderChangesNoVerdict(t *testing.T) {
	w := newWorld(t)
	for alg, k := range signing() {
		token, err := Mint(k, Claims{
			Product: shop, User: "alice", Device: "phone", Platform: push.PlatformWeb, Issued: noon, Expires: noon.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.verify.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		tokens := []string{token, token[:len(token)-1], token + "A", token[1:]}
		for i := range token {
			for _, c := range []byte("A_.") {
				tokens = append(tokens, token[:i]+string(c)+token[i+1:])
			}
		}
		for _, damaged := range tokens {
			cold, err := NewVerifier(Config{Keys: w.cache, Clock: w.clock})
			if err != nil {
				t.Fatal(err)
			}
			cold.parsed.m = w.verify.parsed.m // to parse them again would take long, and is not what is asked
			_, got := w.verify.Verify(t.Context(), damaged)
			_, want := cold.Verify(t.Context(), damaged)
			if fmt.Sprint(got) != fmt.Sprint(want) || ReasonOf(got) != ReasonOf(want) {
				t.Errorf("%s: %s: got %v, want %v", alg, damaged, got, want)
			}
		}
	}
}

func TestVerifier_RemembersAHeaderOnceTheSignatureHolds(t *testing.T) {
	w := newWorld(t)
	k := signing()["HS256"]
	claims := Claims{
		Product: shop, User: "alice", Device: "phone", Platform: push.PlatformWeb, Issued: noon, Expires: noon.Add(time.Hour),
	}
	good, err := Mint(k, claims)
	if err != nil {
		t.Fatal(err)
	}
	forged := k
	forged.Private = []byte("another secret that is long enough")
	bad, err := Mint(forged, claims)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		token string
		kept  int
	}{{bad, 0}, {good, 1}, {bad, 1}, {good, 1}} {
		_, err := w.verify.Verify(t.Context(), step.token)
		if (err == nil) != (step.token == good) || len(w.verify.headers.m) != step.kept {
			t.Errorf("got %v and %d headers, want %d", err, len(w.verify.headers.m), step.kept)
		}
	}
	for i := range maxHeaders + 10 {
		w.verify.headers.note(string(rune('a'+i%26))+time.Duration(i).String(), keyHeader{})
	}
	if n := len(w.verify.headers.m); n != maxHeaders {
		t.Errorf("%d headers are remembered, want at most %d", n, maxHeaders)
	}
}
