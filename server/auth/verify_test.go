package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
)

func TestVerifier_AcceptsEachAlgorithm(t *testing.T) {
	w := newWorld(t)
	for alg, k := range signing() {
		for range 2 { // the second time with the parsed key
			token, err := Mint(k, Claims{
				Product: shop, User: "alice", Device: "phone", Platform: push.PlatformIOS, TokenID: "t-1",
				Issued: noon.Add(-time.Minute), NotBefore: noon.Add(-time.Minute), Expires: noon.Add(time.Hour),
				Tags: []string{"vip", "beta", "vip"}, TagPatterns: []string{"topic:*"},
			})
			if err != nil {
				t.Fatalf("%s: Mint: %v", alg, err)
			}
			got, err := w.verify.Verify(t.Context(), token)
			if err != nil {
				t.Fatalf("%s: Verify: %v", alg, err)
			}
			if got.Product == nil || got.Product.ID != shop {
				t.Fatalf("%s: product: got %+v", alg, got.Product)
			}
			got.Product = nil
			want := Identity{
				User: "alice", Device: "phone", Platform: push.PlatformIOS, TokenID: "t-1", Key: k.ID,
				Issued:  noon.Add(-time.Minute).Local(),
				Expires: noon.Add(time.Hour + DefaultLeeway).Local(), Tags: []string{"beta", "vip"}, TagPatterns: []string{"topic:*"},
			}
			if !got.Expires.Equal(want.Expires) {
				t.Errorf("%s: expires: got %v, want %v", alg, got.Expires, want.Expires)
			}
			got.Expires = want.Expires
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\n got %+v\nwant %+v", alg, got, want)
			}
		}
	}
}

func TestVerifier_AcceptsWhatProductsMayWrite(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	for _, test := range []struct {
		name           string
		header, claims any
		check          func(Identity) bool
	}{
		{"one audience in a list", header(k), goodClaims().with("aud", []string{"shop"}), nil},
		{"no platform", header(k), goodClaims().with("plat", nil),
			func(id Identity) bool { return id.Platform == push.PlatformOther }},
		{"a fraction of a second", header(k), goodClaims().with("exp", float64(noon.Unix())+1.5), nil},
		{"an exponent", header(k), strings.Replace(`{"aud":"shop","sub":"alice","did":"phone","exp":EXP}`, "EXP",
			fmt.Sprintf("%de-1", (noon.Unix()+60)*10), 1), nil},
		{"claims of their own", header(k), goodClaims().with("iss", "x").with("role", object{"sub": "eve", "aud": 1}),
			func(id Identity) bool { return id.User == "alice" }},
		{"other letters are other claims", header(k), goodClaims().with("SUB", "eve").with("Exp", "never"),
			func(id Identity) bool { return id.User == "alice" }},
		{"no type", header(k).with("typ", nil), goodClaims(), nil},
		{"a key of its own, ignored", header(k).with("jwk", object{"kty": "oct", "k": "AAAA"}).
			with("jku", "https://example.com/keys").with("x5u", "https://example.com/cert"), goodClaims(), nil},
		{"64 tags", header(k), goodClaims().with("tags", numbered(64)),
			func(id Identity) bool { return len(id.Tags) == 64 && slices.IsSorted(id.Tags) }},
		{"no tags", header(k), goodClaims().with("tags", []string{}), nil},
		{"a user in another script", header(k), goodClaims().with("sub", "élise 李"),
			func(id Identity) bool { return id.User == "élise 李" }},
		{"a clock that runs ahead a little", header(k),
			goodClaims().with("iat", noon.Unix()+20).with("nbf", noon.Unix()+20), nil},
		{"a clock that runs behind a little", header(k), goodClaims().with("exp", noon.Unix()-20), nil},
		{"the longest lifetime", header(k), goodClaims().with("exp", noon.Add(catalog.DefaultTokenLifetime).Unix()), nil},
	} {
		id, err := w.verify.Verify(t.Context(), sign(t, k, test.header, test.claims))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if test.check != nil && !test.check(id) {
			t.Errorf("%s: got %+v", test.name, id)
		}
	}
}

func numbered(n int) []string {
	ss := make([]string, n)
	for i := range ss {
		ss[i] = fmt.Sprint("tag-", i)
	}
	return ss
}

func TestVerifier_RefusesForm(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	good := sign(t, k, header(k), goodClaims())
	parts := strings.Split(good, ".")
	for _, test := range []struct {
		name, token string
		reason      Reason
	}{
		{"none", "", ReasonMissing},
		{"too large", sign(t, k, header(k), goodClaims().with("x", strings.Repeat("x", MaxToken))), ReasonTooLarge},
		{"too large and all dots", strings.Repeat(".", MaxToken+1), ReasonTooLarge},
		{"all dots", strings.Repeat(".", MaxToken), ReasonMalformed},
		{"no dots", "abc", ReasonMalformed},
		{"one dot", parts[0] + "." + parts[1], ReasonMalformed},
		{"three dots", good + ".x", ReasonMalformed},
		{"five parts, as of an encrypted token", "a.b.c.d.e", ReasonMalformed},
		{"a line break at the end", good + "\n", ReasonMalformed},
		{"a line break inside", parts[0] + ".\n" + parts[1] + "." + parts[2], ReasonMalformed},
		{"padding", parts[0] + "." + parts[1] + "." + parts[2] + "=", ReasonMalformed},
		{"a scheme in front", "Bearer " + good, ReasonMalformed},
		{"no base64", "a." + parts[1] + "." + parts[2], ReasonMalformed},
		{"header is no JSON", sign(t, k, "alg", goodClaims()), ReasonMalformed},
		{"header is a list", sign(t, k, "[]", goodClaims()), ReasonMalformed},
		{"header is null", sign(t, k, "null", goodClaims()), ReasonAlgorithm},
		{"header goes on", sign(t, k, `{"alg":"HS256","kid":"k-hs"}{}`, goodClaims()), ReasonMalformed},
		{"claims are no JSON", sign(t, k, header(k), "x"), ReasonMalformed},
		{"claims are a list", sign(t, k, header(k), "[]"), ReasonMalformed},
		{"claims are a text", sign(t, k, header(k), `"x"`), ReasonMalformed},
		{"claims are null", sign(t, k, header(k), "null"), ReasonAudience},
		{"claims are empty", sign(t, k, header(k), "{}"), ReasonAudience},
		{"claims go on", sign(t, k, header(k), `{"aud":"shop"}{}`), ReasonMalformed},
		{"claims are not UTF-8", sign(t, k, header(k), "{\"aud\":\"shop\",\"x\":\"\xff\"}"), ReasonMalformed},
		{"bits behind the signature", parts[0] + "." + parts[1] + "." + looseBits(t, parts[2]), ReasonMalformed},
	} {
		_, err := w.verify.Verify(t.Context(), test.token)
		t.Run(test.name, func(t *testing.T) {
			wantRefusal(t, err, test.reason, push.KindUnauthenticated, CodeTokenRefused)
		})
	}
}

func TestVerifier_CountsDotsBeforeItParses(t *testing.T) {
	for token, ok := range map[string]bool{
		"": false, "a": false, "a.b": false, "a.b.c": true, "..": true, "a.b.c.": false, "a.b.c.d.e": false,
		strings.Repeat(".", MaxToken): false,
	} {
		if r := checkForm(token); ok != (r == nil) {
			t.Errorf("%.10q: got %v, want it to pass: %v", token, r, ok)
		}
	}
}

// looseBits returns another text that a lenient decoder reads as the same bytes.
func looseBits(t *testing.T, s string) string {
	t.Helper()
	want, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		other := s[:len(s)-1] + string(c)
		if got, err := base64.RawURLEncoding.DecodeString(other); err == nil && other != s && string(got) == string(want) {
			return other
		}
	}
	t.Fatal("the signature leaves no bits over")
	return ""
}

func TestVerifier_RefusesKeys(t *testing.T) {
	w := newWorld(t)
	hs, rs, es := signing()[catalog.HS256], signing()[catalog.RS256], signing()[catalog.ES256]
	// What somebody signs who only has the public key of a product, as if it were a shared secret.
	swap := SigningKey{rs.ID, catalog.HS256, []byte(public(rs))}
	old := SigningKey{"k-old", catalog.HS256, []byte("a secret that was revoked long ago")}
	w.addKey(t, shop, old)
	if _, err := w.cache.RevokeDeviceKey(t.Context(), shop, old.ID); err != nil {
		t.Fatal(err)
	}
	unsigned := func(alg string) string {
		return segment(t, object{"alg": alg, "kid": "k-hs"}) + "." + segment(t, goodClaims()) + "."
	}
	good := sign(t, hs, header(hs), goodClaims())
	cut := strings.Split(good, ".")
	for _, test := range []struct {
		name, token string
		reason      Reason
	}{
		{"none", unsigned("none"), ReasonAlgorithm},
		{"None", unsigned("None"), ReasonAlgorithm},
		{"NONE", unsigned("NONE"), ReasonAlgorithm},
		{"no algorithm", unsigned(""), ReasonAlgorithm},
		{"an algorithm that is a number", sign(t, hs, header(hs).with("alg", 256), goodClaims()), ReasonAlgorithm},
		{"no signature", cut[0] + "." + cut[1] + ".", ReasonSignature},
		{"a public RSA key as a secret", sign(t, swap, header(swap), goodClaims()), ReasonAlgorithm},
		{"the right secret, another hash", sign(t, SigningKey{hs.ID, "HS512", hs.Private}, object{"alg": "HS512", "kid": "k-hs"},
			goodClaims()), ReasonAlgorithm},
		{"PSS in place of PKCS #1", sign(t, SigningKey{rs.ID, "PS256", rs.Private}, object{"alg": "PS256", "kid": "k-rs"},
			goodClaims()), ReasonAlgorithm},
		{"RS256 for an ES256 key", sign(t, rs, header(rs).with("kid", "k-es"), goodClaims()), ReasonAlgorithm},
		{"HS256 said, EdDSA key", sign(t, hs, header(hs).with("kid", "k-ed"), goodClaims()), ReasonAlgorithm},
		{"another secret", sign(t, SigningKey{hs.ID, hs.Alg, []byte("guess")}, header(hs), goodClaims()), ReasonSignature},
		{"signed by the key it brings", sign(t, SigningKey{hs.ID, hs.Alg, []byte("AAAA")},
			header(hs).with("jwk", object{"kty": "oct", "k": "QUFBQQ"}), goodClaims()), ReasonSignature},
		{"claims of another token", strings.Split(sign(t, hs, header(hs), goodClaims().with("sub", "bob")), ".")[0] + "." +
			segment(t, goodClaims().with("sub", "bob")) + "." + cut[2], ReasonSignature},
		{"a short ES256 signature", shorter(sign(t, es, header(es), goodClaims())), ReasonSignature},
		{"another product's key", sign(t, gameKey, header(gameKey), goodClaims()), ReasonUnknownKey},
		{"our key, another product", sign(t, hs, header(hs), goodClaims().with("aud", "game")), ReasonUnknownKey},
		{"another product's id, our secret", sign(t, SigningKey{gameKey.ID, hs.Alg, hs.Private},
			object{"alg": "HS256", "kid": "k-game"}, goodClaims().with("aud", "game")), ReasonSignature},
		{"a revoked key", sign(t, old, header(old), goodClaims()), ReasonRevokedKey},
		{"no kid", sign(t, hs, header(hs).with("kid", nil), goodClaims()), ReasonNoKeyID},
		{"an empty kid", sign(t, hs, header(hs).with("kid", ""), goodClaims()), ReasonNoKeyID},
		{"a kid that is a number", sign(t, hs, header(hs).with("kid", 7), goodClaims()), ReasonNoKeyID},
		{"a kid that is a path", sign(t, hs, header(hs).with("kid", "../k-hs"), goodClaims()), ReasonNoKeyID},
		{"an unknown kid", sign(t, hs, header(hs).with("kid", "k-new"), goodClaims()), ReasonUnknownKey},
		{"critical headers", sign(t, hs, header(hs).with("crit", []string{"exp"}), goodClaims()), ReasonCritical},
		{"no critical headers, said so", sign(t, hs, header(hs).with("crit", []string{}), goodClaims()), ReasonCritical},
	} {
		_, err := w.verify.Verify(t.Context(), test.token)
		t.Run(test.name, func(t *testing.T) {
			wantRefusal(t, err, test.reason, push.KindUnauthenticated, CodeTokenRefused)
		})
	}
}

// shorter takes bytes off an ES256 signature: of 86 characters it leaves 80, which are 60 bytes.
func shorter(token string) string { return token[:len(token)-6] }

func TestVerifier_RefusesClaims(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	now := noon.Unix()
	raw := func(more string) string {
		return fmt.Sprintf(`{"aud":"shop","sub":"alice","did":"phone","exp":%d,%s}`, now+60, more)
	}
	for _, test := range []struct {
		name   string
		claims any
		reason Reason
	}{
		{"no audience", goodClaims().with("aud", nil), ReasonAudience},
		{"two audiences", goodClaims().with("aud", []string{"shop", "game"}), ReasonAudience},
		{"the same audience twice", goodClaims().with("aud", []string{"shop", "shop"}), ReasonAudience},
		{"an empty list of audiences", goodClaims().with("aud", []string{}), ReasonAudience},
		{"an audience that is a number", goodClaims().with("aud", 7), ReasonAudience},
		{"an audience that is null", raw(`"x":1`)[:1] + `"aud":null,"sub":"alice"}`, ReasonAudience},
		{"a list with null", goodClaims().with("aud", []any{nil}), ReasonAudience},
		{"audience there twice", raw(`"aud":"shop"`), ReasonAudience},
		{"an audience that is no id", goodClaims().with("aud", "Shop!"), ReasonAudience},
		{"an unknown product", goodClaims().with("aud", "bank"), ReasonUnknownProduct},
		{"no user", goodClaims().with("sub", nil), ReasonClaims},
		{"an empty user", goodClaims().with("sub", ""), ReasonClaims},
		{"a user that is a number", goodClaims().with("sub", 7), ReasonClaims},
		{"a user that is null", raw(`"jti":null`), ReasonClaims},
		{"a long user", goodClaims().with("sub", strings.Repeat("a", push.MaxUserID+1)), ReasonClaims},
		{"a user with a control character", goodClaims().with("sub", "a\x00b"), ReasonClaims},
		{"user there twice", raw(`"sub":"eve"`), ReasonClaims},
		{"user there twice, once in escapes", raw(`"\u0073ub":"eve"`), ReasonClaims},
		{"no device", goodClaims().with("did", nil), ReasonClaims},
		{"a device with a line break", goodClaims().with("did", "a\nb"), ReasonClaims},
		{"a device that is a list", goodClaims().with("did", []string{"phone"}), ReasonClaims},
		{"an unknown platform", goodClaims().with("plat", "toaster"), ReasonClaims},
		{"a platform that is a number", goodClaims().with("plat", 1), ReasonClaims},
		{"an empty token id", goodClaims().with("jti", ""), ReasonClaims},
		{"a long token id", goodClaims().with("jti", strings.Repeat("j", catalog.MaxTokenID+1)), ReasonClaims},
		{"65 tags", goodClaims().with("tags", numbered(MaxTags+1)), ReasonClaims},
		{"an empty tag", goodClaims().with("tags", []string{""}), ReasonClaims},
		{"a long tag", goodClaims().with("tags", []string{strings.Repeat("t", push.MaxTag+1)}), ReasonClaims},
		{"tags that are a text", goodClaims().with("tags", "vip"), ReasonClaims},
		{"tags with null", goodClaims().with("tags", []any{"vip", nil}), ReasonClaims},
		{"17 patterns", goodClaims().with("tag_patterns", numbered(MaxTagPatterns+1)), ReasonClaims},
		{"an end that is a text", goodClaims().with("exp", fmt.Sprint(now+60)), ReasonClaims},
		{"an end that is null", `{"aud":"shop","sub":"alice","did":"phone","exp":null}`, ReasonClaims},
		{"an end before 1970", goodClaims().with("exp", -5), ReasonClaims},
		{"an end beyond all numbers", `{"aud":"shop","sub":"alice","did":"phone","exp":1e999}`, ReasonClaims},
		{"an end beyond all calendars", goodClaims().with("exp", 1e300), ReasonClaims},
		{"two ends", raw(fmt.Sprint(`"exp":`, now+99)), ReasonClaims},
		{"a beginning that is a text", goodClaims().with("nbf", "now"), ReasonClaims},
		{"no end", goodClaims().with("exp", nil), ReasonEndless},
		{"an end in the year 9999", goodClaims().with("exp", int64(maxDate)), ReasonEndless},
		{"an end too far from now", goodClaims().with("exp", noon.Add(catalog.DefaultTokenLifetime).Unix()+1), ReasonEndless},
		{"an end too far from its beginning", goodClaims().with("iat", 0), ReasonEndless},
		{"issued in the future", goodClaims().with("iat", now+31), ReasonNotYet},
		{"not valid yet", goodClaims().with("nbf", now+31), ReasonNotYet},
	} {
		_, err := w.verify.Verify(t.Context(), sign(t, k, header(k), test.claims))
		t.Run(test.name, func(t *testing.T) {
			wantRefusal(t, err, test.reason, push.KindUnauthenticated, CodeTokenRefused)
		})
	}
}

func TestVerifier_TokenEndsWhenItsIdentitySays(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	token := sign(t, k, header(k), goodClaims())
	id, err := w.verify.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(id.Expires.Sub(noon) - time.Nanosecond)
	if _, err := w.verify.Verify(t.Context(), token); err != nil {
		t.Fatalf("right before its end: %v", err)
	}
	w.clock.Advance(time.Nanosecond)
	_, err = w.verify.Verify(t.Context(), token)
	wantRefusal(t, err, ReasonExpired, push.KindUnauthenticated, CodeTokenExpired)
}

func TestVerifier_LifetimeIsTheProducts(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	token := sign(t, k, header(k), goodClaims().with("iat", noon.Unix()-60).with("exp", noon.Unix()+60))
	if _, err := w.cache.UpdateProduct(t.Context(), catalog.Product{ID: shop, TokenLifetime: 2 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.verify.Verify(t.Context(), token); err != nil {
		t.Fatalf("a token as long as allowed: %v", err)
	}
	if _, err := w.cache.UpdateProduct(t.Context(), catalog.Product{ID: shop, TokenLifetime: 119 * time.Second}); err != nil {
		t.Fatal(err)
	}
	_, err := w.verify.Verify(t.Context(), token)
	wantRefusal(t, err, ReasonEndless, push.KindUnauthenticated, CodeTokenRefused)
}

func TestVerifier_DisabledProductIsForbidden(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	if _, err := w.cache.UpdateProduct(t.Context(), catalog.Product{ID: shop, Disabled: true}); err != nil {
		t.Fatal(err)
	}
	_, err := w.verify.Verify(t.Context(), sign(t, k, header(k), goodClaims()))
	wantRefusal(t, err, ReasonDisabledProduct, push.KindForbidden, CodeProductDisabled)
	// Whoever cannot sign is not told.
	_, err = w.verify.Verify(t.Context(), sign(t, SigningKey{k.ID, k.Alg, []byte("guess")}, header(k), goodClaims()))
	wantRefusal(t, err, ReasonSignature, push.KindUnauthenticated, CodeTokenRefused)
}

func TestVerifier_RevocationElsewhereHoldsWithinASecond(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.ES256]
	token := sign(t, k, header(k), goodClaims())
	if _, err := w.verify.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.RevokeDeviceKey(t.Context(), shop, k.ID); err != nil { // past the cache, as another node does
		t.Fatal(err)
	}
	w.clock.Advance(time.Second)
	_, err := w.verify.Verify(t.Context(), token)
	wantRefusal(t, err, ReasonRevokedKey, push.KindUnauthenticated, CodeTokenRefused)
}

// changingKeys gives out another key under the same id.
type changingKeys struct {
	Keys
	key *catalog.DeviceKey
}

func (c *changingKeys) LookupDeviceKey(context.Context, push.ProductID, catalog.KeyID) (*catalog.DeviceKey, error) {
	return c.key, nil
}

func TestVerifier_ParsedKeyIsThatOfTheMaterial(t *testing.T) {
	w := newWorld(t)
	one := SigningKey{"k", catalog.HS256, []byte("the first of two secrets, 32 bytes")}
	two := SigningKey{"k", catalog.HS256, []byte("the other of two secrets, 32 bytes")}
	keys := &changingKeys{Keys: w.cache}
	v, err := NewVerifier(Config{Keys: keys, Clock: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range []SigningKey{one, two, one} {
		keys.key = &catalog.DeviceKey{Product: shop, ID: "k", Alg: now.Alg, Material: public(now)}
		for _, k := range []SigningKey{one, two} {
			_, err := v.Verify(t.Context(), sign(t, k, header(k), goodClaims()))
			if fits := string(public(k)) == string(public(now)); fits != (err == nil) {
				t.Errorf("a token of a key that fits: %v, got %v", fits, err)
			}
		}
	}
}

// failingKeys is a catalog that does not answer.
type failingKeys struct{}

var errDown = catalog.ErrUnavailable(errors.New("down"))

func (failingKeys) LookupProduct(context.Context, push.ProductID) (*catalog.Product, error) {
	return nil, errDown
}

func (failingKeys) LookupDeviceKey(context.Context, push.ProductID, catalog.KeyID) (*catalog.DeviceKey, error) {
	return nil, errDown
}

func (failingKeys) LookupRevocation(
	context.Context, push.ProductID, push.UserID, push.DeviceID, string, push.MilliTime,
) (*catalog.Revocation, error) {
	return nil, errDown
}

func (failingKeys) LookupAPIKey(context.Context, catalog.APIKeyID) (*catalog.APIKey, error) {
	return nil, errDown
}

func TestVerifier_CatalogThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	k := signing()[catalog.HS256]
	v, err := NewVerifier(Config{Keys: failingKeys{}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(t.Context(), sign(t, k, header(k), goodClaims()))
	if ReasonOf(err) != ReasonNone || push.KindOf(err) != push.KindUnavailable {
		t.Fatalf("got %v, want KindUnavailable and no reason", err)
	}
}

func TestVerifier_ErrorsShowNothingOfTheToken(t *testing.T) {
	w := newWorld(t)
	k := signing()[catalog.HS256]
	for _, token := range []string{
		sign(t, k, header(k), goodClaims().with("sub", []string{"hush-hush"})),
		sign(t, k, header(k), goodClaims().with("aud", "hush-hush")),
		sign(t, k, header(k).with("kid", "hush-hush"), goodClaims()),
		sign(t, k, header(k).with("alg", "hush-hush"), goodClaims()),
		sign(t, k, `{"hush-hush"`, goodClaims()),
		sign(t, k, header(k), `{"hush-hush":`),
		sign(t, k, header(k), goodClaims().with("plat", "hush-hush")),
		"hush-hush.hush-hush.hush-hush",
	} {
		_, err := w.verify.Verify(t.Context(), token)
		if err == nil {
			t.Fatal("accepted")
		}
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "hush") {
			t.Errorf("the error shows what stood in the token: %s", text)
		}
	}
}

func TestNewVerifier_RefusesBadConfigs(t *testing.T) {
	for _, c := range []Config{{}, {Keys: failingKeys{}, Leeway: -1}, {Keys: failingKeys{}, Leeway: MaxLeeway + 1}} {
		if _, err := NewVerifier(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestMint_RefusesKeysThatDoNotFit(t *testing.T) {
	for _, k := range []SigningKey{
		{"k", "none", nil}, {"k", "HS512", []byte("x")}, {"k", catalog.RS256, []byte("x")}, {"k", catalog.EdDSA, nil},
		{"k", catalog.HS256, signing()[catalog.RS256].Private},
	} {
		if token, err := Mint(k, Claims{}); err == nil {
			t.Errorf("%s: got %q", k.Alg, token)
		}
	}
}

func TestReasons_HaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range append(Reasons(), ReasonNone) {
		if n := r.String(); n == "" || seen[n] {
			t.Errorf("reason %d has the name %q", r, n)
		}
		seen[r.String()] = true
	}
	if len(seen) != int(reasonCount) {
		t.Errorf("got %d reasons, want %d", len(seen), reasonCount)
	}
}
