package auth

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"carillon/server/catalog"
	"carillon/server/push"
)

// Limits of claims.
const (
	MaxToken       = 4096 // bytes of a token
	MaxTags        = push.MaxTags
	MaxTagPatterns = push.MaxTagPatterns
)

// maxDate is the last second that a date in a token may name: the end of the year 9999.
const maxDate = 253402300799

// claims are what a device token says, as strictly read: names count letter by letter, each stands once, each has its
// type. What it does not know it passes over.
type claims struct {
	sub, did, plat, jti string
	aud                 []string
	exp, iat, nbf       time.Time // zero: not there
	tags, patterns      []string

	seen  uint16   // which of the claims were there
	wrong *Refusal // the first thing that was wrong
}

// claimNames are the claims that mean something here, in the order of their bits in seen.
var claimNames = [...]string{"aud", "sub", "did", "plat", "jti", "exp", "iat", "nbf", "tags", "tag_patterns"}

// UnmarshalJSON reads the claims. It is called by the parser with a valid JSON value. What is wrong is kept apart from
// the error, since the parser would only call it malformed.
func (c *claims) UnmarshalJSON(b []byte) error {
	c.wrong = c.read(b)
	if c.wrong != nil {
		return c.wrong
	}
	return nil
}

func (c *claims) read(b []byte) *Refusal {
	if !utf8.Valid(b) {
		return refuseToken(ReasonMalformed, "the claims are not UTF-8")
	}
	r, ok := members(b, c.readMember)
	if !ok {
		return refuseToken(ReasonMalformed, "the claims are not a JSON object")
	}
	return r
}

func (c *claims) readMember(quoted, value []byte) *Refusal {
	name, ok := unquote(quoted)
	if !ok {
		return refuseToken(ReasonMalformed, "the claims are not a JSON object")
	}
	at := slices.Index(claimNames[:], name)
	if at < 0 {
		return nil
	}
	if c.seen&(1<<at) != 0 {
		return refuseToken(reasonFor(name), "the claim %s stands in the token more than once", name)
	}
	c.seen |= 1 << at
	if err := c.readValue(name, value); err != nil {
		return refuseToken(reasonFor(name), "the claim %s %v", name, err)
	}
	return nil
}

func reasonFor(name string) Reason {
	if name == "aud" {
		return ReasonAudience
	}
	return ReasonClaims
}

// readValue reads the value of one claim. Errors say what it should be, never what it is.
func (c *claims) readValue(name string, v []byte) (err error) {
	switch name {
	case "aud":
		c.aud, err = readAudience(v)
	case "sub":
		c.sub, err = readString(v)
	case "did":
		c.did, err = readString(v)
	case "plat":
		c.plat, err = readString(v)
	case "jti":
		c.jti, err = readString(v)
	case "exp":
		c.exp, err = readDate(v)
	case "iat":
		c.iat, err = readDate(v)
	case "nbf":
		c.nbf, err = readDate(v)
	case "tags":
		c.tags, err = readSet(v, MaxTags)
	case "tag_patterns":
		c.patterns, err = readSet(v, MaxTagPatterns)
	}
	return err
}

func readString(v []byte) (string, error) {
	if len(v) < 2 || v[0] != '"' {
		return "", fmt.Errorf("is a string")
	}
	s, ok := unquote(v[1 : len(v)-1])
	if !ok {
		return "", fmt.Errorf("is a string")
	}
	return s, nil
}

func readStrings(v []byte) (ss []string, err error) {
	err = elements(v, func(v []byte) error {
		s, err := readString(v)
		ss = append(ss, s)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("is a list of strings")
	}
	return ss, nil
}

// readAudience reads one string, or a list of strings.
func readAudience(v []byte) ([]string, error) {
	if len(v) > 0 && v[0] == '[' {
		return readStrings(v)
	}
	s, err := readString(v)
	return []string{s}, err
}

// readDate reads seconds since 1970, perhaps with a fraction.
func readDate(v []byte) (time.Time, error) {
	n, err := strconv.ParseFloat(string(v), 64)
	if err != nil || n < 0 || n > maxDate || v[0] > '9' { // a word such as "Infinity" is no JSON, and not looked for
		return time.Time{}, fmt.Errorf("is a number of seconds since 1970, before the year 10000")
	}
	whole, part := math.Modf(n)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// readSet reads a list of tags and returns it sorted, each once.
func readSet(v []byte, most int) ([]string, error) {
	ss, err := readStrings(v)
	if err != nil {
		return nil, err
	}
	if len(ss) > most {
		return nil, fmt.Errorf("has at most %d items", most)
	}
	for _, s := range ss {
		if err := push.Tag(s).Check(); err != nil { // for patterns the rules are the same
			return nil, fmt.Errorf("has an item that is none: %v", err)
		}
	}
	slices.Sort(ss)
	return slices.Compact(ss), nil
}

// product returns the one audience.
func (c *claims) product() (push.ProductID, *Refusal) {
	if len(c.aud) != 1 {
		return "", refuseToken(ReasonAudience, "the claim aud names exactly one product")
	}
	p := push.ProductID(c.aud[0])
	if p.Check() != nil {
		return "", refuseToken(ReasonAudience, "the claim aud is not a product id")
	}
	return p, nil
}

// identity returns who the claims say it is. They are believed: the signature held.
func (c *claims) identity() (Identity, *Refusal) {
	id := Identity{
		User: push.UserID(c.sub), Device: push.DeviceID(c.did), TokenID: c.jti, Issued: c.iat, Tags: c.tags,
		TagPatterns: c.patterns,
	}
	if err := id.User.Check(); err != nil {
		return id, refuseToken(ReasonClaims, "the claim sub: %v", err)
	}
	if err := id.Device.Check(); err != nil {
		return id, refuseToken(ReasonClaims, "the claim did: %v", err)
	}
	if c.has("plat") {
		var ok bool
		if id.Platform, ok = push.ParsePlatform(c.plat); !ok {
			return id, refuseToken(ReasonClaims, "the claim plat is one of web, android, ios, desktop, tablet, tv, other")
		}
	}
	if c.has("jti") {
		if err := catalog.CheckTokenID(c.jti); err != nil {
			return id, refuseToken(ReasonClaims, "the claim jti: %v", err)
		}
	}
	return id, nil
}

func (c *claims) has(name string) bool { return c.seen&(1<<slices.Index(claimNames[:], name)) != 0 }

// The parser wants these; the dates are judged here and not by it, so these are never asked for in earnest.

// GetExpirationTime returns exp.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return numeric(c.exp), nil }

// GetIssuedAt returns iat.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) { return numeric(c.iat), nil }

// GetNotBefore returns nbf.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return numeric(c.nbf), nil }

// GetIssuer returns nothing.
func (c *claims) GetIssuer() (string, error) { return "", nil }

// GetSubject returns sub.
func (c *claims) GetSubject() (string, error) { return c.sub, nil }

// GetAudience returns aud.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.aud, nil }

func numeric(t time.Time) *jwt.NumericDate {
	if t.IsZero() {
		return nil
	}
	return jwt.NewNumericDate(t)
}
