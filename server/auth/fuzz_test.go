package auth

import (
	"context"
	"slices"
	"testing"

	"carillon/server/catalog"
)

// FuzzVerify holds the verifier to: only what was signed is accepted, byte for byte.
func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	k := signing()[catalog.HS256]
	minted := map[string]bool{}
	for _, claims := range []object{
		goodClaims(), goodClaims().with("sub", "bob"), goodClaims().with("tags", []string{"vip"}), goodClaims().with("exp", nil),
	} {
		token := sign(f, k, header(k), claims)
		minted[token] = true
		f.Add(token)
	}
	f.Add("..")
	f.Add("e30.e30.")
	f.Add("eyJhbGciOiJub25lIiwia2lkIjoiay1ocyJ9.eyJhdWQiOiJzaG9wIn0.")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := w.verify.Verify(context.Background(), token)
		if err == nil && !minted[token] {
			t.Fatalf("accepted %q, which nobody signed", token)
		}
		if err != nil && ReasonOf(err) == ReasonNone {
			t.Fatalf("%q: refused without a reason: %v", token, err)
		}
	})
}

// FuzzVerifyClaims signs whatever comes, and holds identities to the rules of ids.
func FuzzVerifyClaims(f *testing.F) {
	w := newWorld(f)
	k := signing()[catalog.HS256]
	good := segmentText(f, goodClaims())
	f.Add(`{"alg":"HS256","kid":"k-hs"}`, good)
	f.Add(`{"alg":"HS256","kid":"k-hs","crit":[]}`, good)
	f.Add(`{"alg":"HS256","kid":"k-hs","kid":"k-game"}`, `{"aud":["shop"],"sub":"a","did":"b","exp":1772625700.5}`)
	f.Add(`{"alg":"HS256","kid":"k-hs"}`, `{"aud":"shop","sub":"\ud800","did":"b","tags":["x","x"],"exp":1772625700}`)
	f.Fuzz(func(t *testing.T, header, claims string) {
		token := sign(t, k, header, claims)
		id, err := w.verify.Verify(context.Background(), token)
		if err != nil {
			if ReasonOf(err) == ReasonNone {
				t.Fatalf("%s %s: refused without a reason: %v", header, claims, err)
			}
			return
		}
		if id.User.Check() != nil || id.Device.Check() != nil || id.Product.ID != shop || id.Key != k.ID {
			t.Fatalf("%s %s: got %+v", header, claims, id)
		}
		if len(id.Tags) > MaxTags || !slices.IsSorted(id.Tags) || len(id.TagPatterns) > MaxTagPatterns {
			t.Fatalf("%s %s: tags %v, %v", header, claims, id.Tags, id.TagPatterns)
		}
		if !id.Expires.After(noon) || id.Expires.Sub(noon) > catalog.DefaultTokenLifetime+2*DefaultLeeway {
			t.Fatalf("%s %s: expires %v", header, claims, id.Expires)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	for _, alg := range []catalog.Algorithm{catalog.HS256, catalog.RS256, catalog.ES256, catalog.EdDSA} {
		b.Run(string(alg), func(b *testing.B) {
			k := signing()[alg]
			token := sign(b, k, header(k), goodClaims().with("iat", noon.Unix()).with("jti", "0123456789abcdef"))
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.verify.Verify(ctx, token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
