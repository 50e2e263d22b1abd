package catalog

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"carillon/server/push"
)

// Limits of revocations.
const (
	// MaxRevocations is how many of one product are kept at a time, lifted ones too until they would have ended. Every
	// node holds all of them in memory.
	MaxRevocations = 50_000
	MaxTokenID     = 128 // bytes of the id of a token (jti)
	MaxReason      = 200 // bytes of a reason for people
)

// revocationMargin is how much longer a revocation is kept than the tokens that it refuses can live: what the clocks of
// nodes may differ by, and the leeway that they give to the clocks of products.
const revocationMargin = time.Hour

// RevocationTarget says whose tokens are refused: all of a user's, those of one device, or the one of that id. At most one of
// Device and TokenID is set.
type RevocationTarget struct {
	User    push.UserID
	Device  push.DeviceID // empty: of all devices
	TokenID string        // jti; empty: of every id
}

// Revocation refuses tokens. One that names a token id refuses that token; any other refuses every token of its target
// that was issued (iat) at At or before it, and those that do not say when they were issued.
type Revocation struct {
	Product push.ProductID
	RevocationTarget
	Reason string         // for people; may be empty
	At     push.MilliTime // when it was asked for
	Until  push.MilliTime // no token that it refuses is good any more
	Lifted bool           // it refuses nothing; kept so that whoever follows the changes learns of it
	Change Change         // the change that wrote it
}

// Change numbers what happened to revocations, in all products: later changes have higher numbers. Zero is before all of
// them.
type Change uint64

// Ended reports whether the revocation has nothing left to refuse.
func (r *Revocation) Ended(now push.MilliTime) bool { return now >= r.Until }

// Refuses reports whether the revocation, being of its target, refuses a token that was issued at that moment; 0: the token
// does not say.
func (r *Revocation) Refuses(issued, now push.MilliTime) bool {
	if r.Lifted || r.Ended(now) {
		return false
	}
	return r.TokenID != "" || issued == 0 || issued <= r.At
}

// Check reports what is wrong with a target, nil if nothing is.
func (t RevocationTarget) Check() error {
	if err := t.User.Check(); err != nil {
		return err
	}
	if t.Device != "" && t.TokenID != "" {
		return fmt.Errorf("a revocation is of a device or of a token id, not of both")
	}
	if t.Device != "" {
		return t.Device.Check()
	}
	if t.TokenID != "" {
		return CheckTokenID(t.TokenID)
	}
	return nil
}

// CheckTokenID reports what is wrong with the id of a token (jti), nil if nothing is.
func CheckTokenID(id string) error {
	if id == "" || len(id) > MaxTokenID {
		return fmt.Errorf("the id of a token has 1 to %d bytes", MaxTokenID)
	}
	if !utf8.ValidString(id) {
		return fmt.Errorf("the id of a token is valid UTF-8")
	}
	if strings.ContainsFunc(id, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return fmt.Errorf("the id of a token holds no control characters")
	}
	return nil
}

func (r *Revocation) check() error {
	if err := r.Product.Check(); err != nil {
		return err
	}
	if len(r.Reason) > MaxReason {
		return fmt.Errorf("a reason has at most %d bytes", MaxReason)
	}
	if err := checkName(r.Reason); err != nil {
		return fmt.Errorf("a reason is UTF-8 without control characters")
	}
	return r.RevocationTarget.Check()
}

// NewRevocation returns r as Revoke stores it, for a product whose tokens live at most so long. old is what it takes the
// place of, nil if nothing. Implementations call it.
func NewRevocation(r Revocation, old *Revocation, lifetime time.Duration, now push.MilliTime, c Change) (Revocation, error) {
	r.At, r.Until, r.Lifted, r.Change = now, now.Add(lifetime+revocationMargin), false, c
	if old != nil && !old.Lifted { // a clock that was put back must not let in what was refused
		r.At, r.Until = max(r.At, old.At), max(r.Until, old.Until)
	}
	if err := r.check(); err != nil {
		return r, &push.Error{Kind: push.KindInvalid, Code: "bad_revocation", Detail: err.Error()}
	}
	return r, nil
}

// LiftedRevocation returns old as LiftRevocation stores it: what is kept of it tells followers that it is gone.
// Implementations call it.
func LiftedRevocation(old Revocation, c Change) Revocation {
	old.Lifted, old.Change, old.Reason = true, c, ""
	return old
}

// Compare sorts targets by user, device and token id, byte by byte.
func (t RevocationTarget) Compare(o RevocationTarget) int {
	return cmp.Or(cmp.Compare(t.User, o.User), cmp.Compare(t.Device, o.Device), cmp.Compare(t.TokenID, o.TokenID))
}

// Place returns the target as List.Next names it. Names hold no NUL.
func (t RevocationTarget) Place() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join([]string{string(t.User), string(t.Device), t.TokenID}, "\x00")))
}

// CheckRevocationPage returns the page with its default filled in, and the target behind which it begins; nil: with the first.
// KindInvalid, "bad_page". Implementations call it.
func CheckRevocationPage(page Page) (Page, *RevocationTarget, error) {
	page, err := page.Check()
	if err != nil || page.After == "" {
		return page, nil, err
	}
	b, err := base64.RawURLEncoding.DecodeString(page.After)
	names := strings.Split(string(b), "\x00")
	if err != nil || len(names) != 3 {
		return page, nil, push.Errorf(push.KindInvalid, "bad_page", "that is not what a list of revocations went on with")
	}
	return page, &RevocationTarget{User: push.UserID(names[0]), Device: push.DeviceID(names[1]), TokenID: names[2]}, nil
}

// RevocationPage makes the answer of a page from what was found, which may be one more than the page has. Implementations call it.
func RevocationPage(found []Revocation, limit int) (l List[Revocation]) {
	if len(found) > limit {
		found = found[:limit]
		l.Next = found[limit-1].Place()
	}
	l.Items = found
	return l
}

// MaxChanges is the most that RevocationChanges returns at a time.
const MaxChanges = 1000

// CheckChanges returns the limit of a call of RevocationChanges with its default filled in. KindInvalid, "bad_page".
// Implementations call it.
func CheckChanges(limit int) (int, error) {
	if limit < 0 || limit > MaxChanges {
		return 0, push.Errorf(push.KindInvalid, "bad_page", "1 to %d changes are told at a time", MaxChanges)
	}
	if limit == 0 {
		limit = MaxChanges
	}
	return limit, nil
}

// SweptAtRevoke is how many ended revocations each Revoke clears away at most. More than one, so that they get fewer; so they
// need no sweep of their own, and what nobody adds to does not grow.
const SweptAtRevoke = 16

// ErrRevocationNotFound returns the error of a revocation that is not there, was lifted or has ended.
func ErrRevocationNotFound() error {
	return push.Errorf(push.KindNotFound, "revocation_not_found", "nothing of that target is revoked")
}

// ErrTooManyRevocations returns the error of a product that has as many as it may.
func ErrTooManyRevocations() error {
	return &push.Error{
		Kind: push.KindLimited, Code: "too_many_revocations", After: time.Minute,
		Detail: fmt.Sprintf("a product has at most %d revocations at a time; revoke users or devices instead of tokens, "+
			"let tokens live shorter, or revoke their key", MaxRevocations),
	}
}
