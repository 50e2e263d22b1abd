package push

import (
	"errors"
	"fmt"
	"time"
)

// Kind sorts errors by what the caller should do. Callers branch on it, never on text; center translates it to an HTTP
// status and room to a close code, once.
type Kind uint8

// The kinds.
const (
	KindInternal        Kind = iota // ours; the outcome is unknown
	KindInvalid                     // the request is wrong and will stay wrong
	KindUnauthenticated             // no credential, or one that does not hold
	KindForbidden                   // the credential does not allow it
	KindNotFound
	KindConflict    // the state does not allow it
	KindKeyReused   // an idempotency key came again with another request
	KindTooLarge    // beyond a limit of size
	KindLimited     // beyond a rate or a count; comes back later
	KindUnavailable // durability or a store cannot be had now; nothing is promised, repeat with the same key
	KindClosed      // this part has been shut down
)

// Error is an error with a kind and a code. Code is stable and documented (openapi.yaml, api/README.md); Detail may be
// shown to whoever asked and never holds a secret, a body or a value that they sent; Err is for the log.
type Error struct {
	Kind   Kind
	Code   string
	Detail string
	After  time.Duration // when to come back, for KindLimited and KindUnavailable; 0: not said
	Err    error
}

// Error returns code, detail and cause.
func (e *Error) Error() string {
	s := e.Code
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error of that kind and code; the format makes its Detail.
func Errorf(k Kind, code, format string, args ...any) *Error {
	return &Error{Kind: k, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of the first *Error in err's chain, KindInternal if there is none.
func KindOf(err error) Kind {
	if err == nil {
		return KindInternal
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}
