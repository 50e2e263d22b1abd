package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"carillon/server/push"
)

// MinSecret is the fewest bytes that the secret of a node has. DevMark is what secrets begin with that were generated for
// development; they stop a start that is none.
const (
	MinSecret = 32
	DevMark   = "dev-"
)

// minVariety is the fewest different bytes that a secret has: 32 random hexadecimal digits practically always have more.
const minVariety = 8

// CheckSecret returns why a secret must not be used outside development, nil if it may: it is absent, short, of
// little variety, or generated for development. The error (KindInvalid, "bad_secret") says how to make one, and
// nothing about the one given.
func CheckSecret(s string) error {
	const how = "; make one with: openssl rand -base64 32"
	bad := func(what string) error {
		return push.Errorf(push.KindInvalid, CodeBadSecret, "%s", what+how)
	}
	switch {
	case s == "":
		return bad("the secret is not set")
	case len(s) >= len(DevMark) && strings.EqualFold(s[:len(DevMark)], DevMark):
		return bad("the secret was generated for development")
	case len(s) < MinSecret:
		return bad("the secret has fewer than 32 bytes")
	case variety(s) < minVariety || repeats(s):
		return bad("the secret is easy to guess")
	}
	return nil
}

// variety returns how many different bytes there are.
func variety(s string) (n int) {
	var seen [256]bool
	for i := 0; i < len(s); i++ {
		if !seen[s[i]] {
			seen[s[i]] = true
			n++
		}
	}
	return n
}

// repeats reports whether s is a shorter text over and over, the last time perhaps in part.
func repeats(s string) bool {
	for unit := 1; unit <= len(s)/2; unit++ {
		if s[unit:] == s[:len(s)-unit] {
			return true
		}
	}
	return false
}

// EqualSecret compares in a time that tells nothing about either, their lengths included. No secret equals an absent one.
func EqualSecret(got, want string) bool {
	g, w := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(g[:], w[:]) == 1 && want != ""
}
