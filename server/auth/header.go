package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"

	"carillon/server/catalog"
)

// keyHeader is what the header of a token says, as far as it matters.
type keyHeader struct {
	method jwt.SigningMethod
	key    catalog.KeyID
}

// headerOf returns the header of a token that the parser understood.
func headerOf(t *jwt.Token) (keyHeader, *Refusal) {
	if _, ok := t.Header["crit"]; ok {
		return keyHeader{}, refuseToken(ReasonCritical, "the token demands extensions (crit), of which none are known")
	}
	kid, ok := t.Header["kid"].(string)
	if !ok || kid == "" {
		return keyHeader{}, refuseToken(ReasonNoKeyID, "the header of the token names its key (kid)")
	}
	return keyHeader{t.Method, catalog.KeyID(kid)}, nil
}

// Bounds of the headers that are remembered.
const (
	maxHeaders     = 1000
	maxHeaderBytes = 512
)

// keyHeaders remembers the headers of tokens whose signatures held. All tokens that a product signs with one key begin with the
// same letters, and to read them once more each time, into a map, is a good part of what a token costs.
type keyHeaders struct {
	mu sync.RWMutex
	m  map[string]keyHeader // guarded by mu
}

func (hs *keyHeaders) lookup(name string) (keyHeader, bool) {
	hs.mu.RLock()
	defer hs.mu.RUnlock()
	h, ok := hs.m[name]
	return h, ok
}

func (hs *keyHeaders) note(name string, h keyHeader) {
	if len(name) > maxHeaderBytes {
		return
	}
	h.key = catalog.KeyID(strings.Clone(string(h.key)))
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if len(hs.m) >= maxHeaders {
		for other := range hs.m {
			delete(hs.m, other)
			break
		}
	}
	hs.m[strings.Clone(name)] = h // and not the token that it is a piece of
}

// segments decodes the parts of a token as the parser does.
var segments = base64.RawURLEncoding.Strict()

// parseKnown is parse for a token whose header is remembered. What is wrong with its form is left to the parser to say: the
// claims are nil then.
func (v *Verifier) parseKnown(ctx context.Context, token, name string, h keyHeader) (
	*claims, *catalog.Product, *catalog.DeviceKey, error,
) {
	end := strings.LastIndexByte(token, '.')
	signed, signature := token[:end], token[end+1:]
	b, err := segments.DecodeString(signed[len(name)+1:])
	if err != nil || !json.Valid(b) {
		return nil, nil, nil, nil
	}
	sig, err := segments.DecodeString(signature)
	if err != nil {
		return nil, nil, nil, nil
	}
	c := new(claims)
	if c.read(b) != nil {
		return nil, nil, nil, nil
	}
	product, key, k, err := v.find(ctx, c, h)
	if err != nil {
		return c, nil, nil, err
	}
	if h.method.Verify(signed, sig, k) != nil {
		return c, nil, nil, refuseSignature()
	}
	return c, product, key, nil
}
