// Package auth decides who somebody is: a device by the token that its product signed, a product's server by its API
// key, an operator by the secret of the node.
//
// # Place in the flow
//
// A room hands over what a connect frame carried and gets an [Identity]. Center hands over the Authorization header of a
// request and gets a [Principal]. Both ask the catalog through its cache, so that a check costs no read of a store.
//
// # Invariants
//
//   - The product is that of the token's audience, and only that product's keys are looked at. The key's own algorithm
//     decides; what the token says about algorithms and keys can only make it be refused.
//   - Nothing that a token says is believed before its signature held.
//   - A token that holds ends: one without an end, or with one too far away, is refused.
//   - Every refusal has a typed reason, which is its metric label. No error and no log line holds a token, a key, or what
//     stood in one.
//   - Secrets are compared in constant time.
package auth

import (
	"errors"

	"carillon/server/push"
)

// Reason is why a token or an API key was refused. Its name is a metric label.
type Reason uint8

// The reasons.
const (
	ReasonNone           Reason = iota // not refused, or not by this package
	ReasonMissing                      // there is no token or key
	ReasonTooLarge                     // longer than MaxToken
	ReasonMalformed                    // not three parts of base64url with JSON in the first two
	ReasonCritical                     // the header demands extensions
	ReasonAudience                     // not exactly one audience
	ReasonUnknownProduct               // the audience is no product
	ReasonNoKeyID                      // the header names no key
	ReasonUnknownKey                   // the product has no such key, or there is no such API key
	ReasonRevokedKey
	ReasonAlgorithm // not the key's own algorithm
	ReasonSignature // it does not hold, or the secret of an API key is wrong
	ReasonClaims    // a claim is missing, there twice, of a wrong type or beyond a limit
	ReasonEndless   // no end, or one too far away
	ReasonExpired
	ReasonNotYet          // not valid yet, or issued in the future
	ReasonDisabledProduct // the product is disabled
	ReasonScope           // the API key does not have the scope
	ReasonRevoked         // the user, the device or the token was revoked
	reasonCount
)

var reasonNames = [reasonCount]string{
	"none", "missing", "too_large", "malformed", "critical", "audience", "unknown_product", "no_key_id", "unknown_key",
	"revoked_key", "algorithm", "signature", "claims", "endless", "expired", "not_yet", "disabled_product", "scope", "revoked",
}

// String returns the reason's name.
func (r Reason) String() string { return reasonNames[min(r, reasonCount-1)] }

// Reasons returns every reason but ReasonNone, so that metrics can be made before the first refusal.
func Reasons() []Reason {
	var rs []Reason
	for r := ReasonNone + 1; r < reasonCount; r++ {
		rs = append(rs, r)
	}
	return rs
}

// Refusal is the error of somebody who is not let in. It unwraps to a *push.Error, which may be shown to them.
type Refusal struct {
	Reason Reason
	err    *push.Error
}

// Error returns the reason and what may be shown.
func (r *Refusal) Error() string { return "auth: " + r.Reason.String() + ": " + r.err.Error() }

// Unwrap returns what may be shown.
func (r *Refusal) Unwrap() error { return r.err }

// ReasonOf returns why somebody was refused; ReasonNone if err is no refusal, but a catalog that does not answer, say.
func ReasonOf(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ReasonNone
}

// The codes that clients and product servers see.
const (
	CodeTokenRefused    = "token_refused"
	CodeTokenExpired    = "token_expired"
	CodeUnauthenticated = "unauthenticated"
	CodeKeyRevoked      = "key_revoked"
	CodeKeyExpired      = "key_expired"
	CodeProductDisabled = "product_disabled"
	CodeScopeMissing    = "scope_missing"
	CodeBadSecret       = "bad_secret"
	CodeRevoked         = "revoked"
)

// refuse returns a refusal.
func refuse(r Reason, k push.Kind, code, format string, args ...any) *Refusal {
	return &Refusal{Reason: r, err: push.Errorf(k, code, format, args...)}
}

// refuseToken returns the refusal of a token that does not hold.
func refuseToken(r Reason, format string, args ...any) *Refusal {
	return refuse(r, push.KindUnauthenticated, CodeTokenRefused, format, args...)
}

// refuseDisabled returns the refusal of whoever belongs to a disabled product.
func refuseDisabled() *Refusal {
	return refuse(ReasonDisabledProduct, push.KindForbidden, CodeProductDisabled, "the product is disabled")
}

// refuseRevoked returns the refusal of a token that was good until it, its device or its user was revoked.
func refuseRevoked() *Refusal {
	return refuse(ReasonRevoked, push.KindForbidden, CodeRevoked,
		"the user, the device or the token was revoked; a token issued from now on may be good")
}

// isNotFound reports whether the catalog said that there is no such thing.
func isNotFound(err error) bool { return err != nil && push.KindOf(err) == push.KindNotFound }
