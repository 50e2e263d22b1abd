package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"carillon/server/catalog"
	"carillon/server/clock"
	"carillon/server/push"
)

// Keys is where products, device keys and revocations are found. *catalog.Cache is one. What it returns is shared and not
// changed.
type Keys interface {
	LookupProduct(ctx context.Context, id push.ProductID) (*catalog.Product, error)
	LookupDeviceKey(ctx context.Context, p push.ProductID, id catalog.KeyID) (*catalog.DeviceKey, error)
	// LookupRevocation returns what refuses a token, nil if nothing does.
	LookupRevocation(ctx context.Context, p push.ProductID, u push.UserID, d push.DeviceID, tokenID string,
		issued push.MilliTime) (*catalog.Revocation, error)
}

// KeySets is where keys are found that a product publishes at its own address (catalog.Product.JWKS). *jwks.Cache is one. What it
// returns is shared and not changed.
type KeySets interface {
	// LookupKey returns a key. KindNotFound: the product publishes none of that id. Another error says nothing about that.
	LookupKey(ctx context.Context, p *catalog.Product, id catalog.KeyID) (*catalog.DeviceKey, error)
}

// DefaultLeeway is how far a product's clock may be off; MaxLeeway how far at most.
const (
	DefaultLeeway = 30 * time.Second
	MaxLeeway     = 5 * time.Minute
)

// Config says how a verifier is made.
type Config struct {
	Keys   Keys
	Sets   KeySets       // nil: keys that products publish are not looked at
	Clock  clock.Clock   // clock.System if nil
	Leeway time.Duration // allowed between the clocks of products and ours; 0 means DefaultLeeway, at most MaxLeeway
}

// Identity is who holds a token.
type Identity struct {
	Product     *catalog.Product // shared: do not change it
	User        push.UserID
	Device      push.DeviceID
	Platform    push.Platform
	TokenID     string    // jti; may be empty
	Issued      time.Time // iat; zero if the token does not say
	Expires     time.Time // from here on the token is refused: its exp and the leeway
	Tags        []string  // sorted, each once
	TagPatterns []string  // tags that the client may join and leave by itself; sorted, each once
	Key         catalog.KeyID
}

// Verifier judges device tokens. All methods are safe for concurrent use.
type Verifier struct {
	// Static after construction.
	keys   Keys
	sets   KeySets
	clock  clock.Clock
	leeway time.Duration
	parser *jwt.Parser

	parsed  parsedKeys
	headers keyHeaders
}

// NewVerifier returns a verifier.
func NewVerifier(c Config) (*Verifier, error) {
	if c.Keys == nil {
		return nil, errors.New("auth: a verifier needs keys")
	}
	if c.Leeway < 0 || c.Leeway > MaxLeeway {
		return nil, fmt.Errorf("auth: the leeway is 0 to %v", MaxLeeway)
	}
	if c.Leeway == 0 {
		c.Leeway = DefaultLeeway
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	algs := []string{string(catalog.HS256), string(catalog.RS256), string(catalog.ES256), string(catalog.EdDSA)}
	return &Verifier{
		keys: c.Keys, sets: c.Sets, clock: c.Clock, leeway: c.Leeway,
		// Claims are judged by this package: the library's validator has no typed reasons.
		parser:  jwt.NewParser(jwt.WithValidMethods(algs), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation()),
		parsed:  parsedKeys{m: make(map[keyName]parsedKey)},
		headers: keyHeaders{m: make(map[string]keyHeader)},
	}, nil
}

// Verify returns who holds the token. A *Refusal says why nobody does: KindUnauthenticated, "token_refused" or
// "token_expired", or KindForbidden, "product_disabled" or "revoked". Another error is the catalog's, and says nothing
// about the token.
func (v *Verifier) Verify(ctx context.Context, token string) (Identity, error) {
	if r := checkForm(token); r != nil {
		return Identity{}, r
	}
	c, product, key, err := v.parse(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	id, r := c.identity()
	if r == nil {
		id.Product, id.Key = product, key.ID
		id.Expires, r = v.judgeTimes(c, product)
	}
	if r == nil && product.Disabled {
		r = refuseDisabled()
	}
	if r != nil {
		return Identity{}, r
	}
	if err := v.Recheck(ctx, id); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// parse returns what a token says, and the product and key that it is of, once its signature holds.
func (v *Verifier) parse(ctx context.Context, token string) (*claims, *catalog.Product, *catalog.DeviceKey, error) {
	name, _, _ := strings.Cut(token, ".")
	if h, ok := v.headers.lookup(name); ok {
		c, product, key, err := v.parseKnown(ctx, token, name, h)
		if c != nil {
			return c, product, key, err
		}
	}
	var (
		c       = new(claims)
		h       keyHeader
		product *catalog.Product
		key     *catalog.DeviceKey
		failed  error // why no key was found
	)
	_, err := v.parser.ParseWithClaims(token, c, func(t *jwt.Token) (k any, _ error) {
		var r *Refusal
		if h, r = headerOf(t); r != nil {
			failed = r
		} else {
			product, key, k, failed = v.find(ctx, c, h)
		}
		return k, failed
	})
	switch {
	case c.wrong != nil:
		return c, nil, nil, c.wrong
	case failed != nil:
		return c, nil, nil, failed
	case err != nil:
		return c, nil, nil, refusalOf(err, product != nil)
	}
	v.headers.note(name, h)
	return c, product, key, nil
}

// Recheck returns the refusal of somebody who was let in and has been revoked since, nil if that is not so: KindForbidden,
// "revoked". Whoever lets somebody in asks again once the session stands where a revocation looks for it: one that comes
// between Verify and then is seen by one of the two.
func (v *Verifier) Recheck(ctx context.Context, id Identity) error {
	var issued push.MilliTime
	if !id.Issued.IsZero() {
		issued = max(push.Milli(id.Issued), 1) // 0 is a token that does not say
	}
	r, err := v.keys.LookupRevocation(ctx, id.Product.ID, id.User, id.Device, id.TokenID, issued)
	if err != nil {
		return fmt.Errorf("auth: look up revocations: %w", err)
	}
	if r != nil {
		return refuseRevoked()
	}
	return nil
}

// checkForm looks at the outside of a token, so that nothing large or odd reaches a parser: three parts, parted by
// two dots, of base64url. (Go's decoders pass over line breaks, which would make many tokens of one.)
func checkForm(token string) *Refusal {
	if token == "" {
		return refuseToken(ReasonMissing, "there is no token")
	}
	if len(token) > MaxToken {
		return refuseToken(ReasonTooLarge, "a token has at most %d bytes", MaxToken)
	}
	dots := 0
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case c == '.':
			dots++
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return refuseToken(ReasonMalformed, "a token is made of letters, digits, '-', '_' and two dots")
		}
	}
	if dots != 2 {
		return refuseToken(ReasonMalformed, "a token has three parts, parted by dots")
	}
	return nil
}

// find returns the product, the key and the parsed key that a token claims to be of. Nothing it reads is believed yet:
// it only says which key to try.
func (v *Verifier) find(ctx context.Context, c *claims, h keyHeader) (*catalog.Product, *catalog.DeviceKey, any, error) {
	p, r := c.product()
	if r != nil {
		return nil, nil, nil, r
	}
	product, err := v.keys.LookupProduct(ctx, p)
	if isNotFound(err) {
		return nil, nil, nil, refuseToken(ReasonUnknownProduct, "the claim aud is not a product of this gateway")
	} else if err != nil {
		return nil, nil, nil, fmt.Errorf("auth: look up the product: %w", err)
	}
	key, err := v.key(ctx, product, h.key)
	if err != nil {
		return nil, nil, nil, err
	}
	if key.Revoked != 0 {
		return nil, nil, nil, refuseToken(ReasonRevokedKey, "the key was revoked; sign with another one")
	}
	if h.method.Alg() != string(key.Alg) {
		return nil, nil, nil, refuseToken(ReasonAlgorithm, "the token is not signed with the algorithm of its key")
	}
	k, err := v.parsed.get(key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("auth: a stored key cannot be read: %w", err)
	}
	return product, key, k, nil
}

// key returns the product's key of an id: that of the catalog or, if it has none, the one that the product publishes.
func (v *Verifier) key(ctx context.Context, product *catalog.Product, id catalog.KeyID) (*catalog.DeviceKey, error) {
	own, published := id.Check() == nil, v.sets != nil && product.JWKS != ""
	if !own && !published {
		return nil, refuseToken(ReasonNoKeyID, "the header of the token names its key (kid)")
	}
	err := catalog.ErrKeyNotFound()
	var key *catalog.DeviceKey
	if own { // others' servers give their keys ids that keys in the catalog do not have
		key, err = v.keys.LookupDeviceKey(ctx, product.ID, id)
	}
	if isNotFound(err) && published {
		key, err = v.sets.LookupKey(ctx, product, id)
	}
	switch {
	case isNotFound(err):
		return nil, refuseToken(ReasonUnknownKey, "the product has no key of that id (kid)")
	case err != nil:
		return nil, fmt.Errorf("auth: look up the key: %w", err)
	}
	return key, nil
}

// refusalOf translates what the parser says. Its text stays here: it may quote the token. tried is whether a key was
// asked for, which is not so if the algorithm is none of ours.
func refusalOf(err error, tried bool) *Refusal {
	invalid := errors.Is(err, jwt.ErrTokenSignatureInvalid)
	switch {
	case invalid && tried:
		return refuseSignature()
	case invalid, errors.Is(err, jwt.ErrTokenUnverifiable):
		return refuseToken(ReasonAlgorithm, "the algorithm (alg) of a token is HS256, RS256, ES256 or EdDSA")
	}
	return refuseToken(ReasonMalformed, "a token is header, claims and signature in base64url, the first two of them JSON")
}

func refuseSignature() *Refusal {
	return refuseToken(ReasonSignature, "the signature of the token does not hold")
}

// judgeTimes returns from when on the token is refused.
func (v *Verifier) judgeTimes(c *claims, p *catalog.Product) (time.Time, *Refusal) {
	now, most := v.clock.Now(), p.MaxTokenLifetime()
	if c.exp.IsZero() {
		return now, refuseToken(ReasonEndless, "the token has no end: set the claim exp")
	}
	from := now
	if !c.iat.IsZero() {
		from = c.iat
	}
	if c.exp.Sub(from) > most {
		return now, refuseToken(ReasonEndless, "the token is good for too long: exp is at most %v after iat, or after now", most)
	}
	if !c.iat.IsZero() && c.iat.After(now.Add(v.leeway)) {
		return now, refuseToken(ReasonNotYet, "the token was issued in the future (iat); compare the clocks")
	}
	if !c.nbf.IsZero() && c.nbf.After(now.Add(v.leeway)) {
		return now, refuseToken(ReasonNotYet, "the token is not valid yet (nbf); compare the clocks")
	}
	end := c.exp.Add(v.leeway)
	if !now.Before(end) {
		return now, refuse(ReasonExpired, push.KindUnauthenticated, CodeTokenExpired, "the token expired; get another one")
	}
	return end, nil
}

// maxParsed is how many parsed keys are kept.
const maxParsed = 10_000

// parsedKeys keeps keys in the form that signatures are verified with: parsing one costs as much as a signature.
type parsedKeys struct {
	mu sync.RWMutex
	m  map[keyName]parsedKey // guarded by mu
}

type keyName struct {
	product push.ProductID
	id      catalog.KeyID
}

type parsedKey struct {
	alg      catalog.Algorithm
	material catalog.Material // what it was parsed from
	key      any
}

func (ps *parsedKeys) get(k *catalog.DeviceKey) (any, error) {
	name := keyName{k.Product, k.ID}
	ps.mu.RLock()
	p, ok := ps.m[name]
	ps.mu.RUnlock()
	if ok && p.alg == k.Alg && bytes.Equal(p.material, k.Material) {
		return p.key, nil
	}
	key, err := k.Material.Parse(k.Alg)
	if err != nil {
		return nil, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.m) >= maxParsed {
		for other := range ps.m {
			delete(ps.m, other)
			break
		}
	}
	ps.m[name] = parsedKey{k.Alg, k.Material, key}
	return key, nil
}
