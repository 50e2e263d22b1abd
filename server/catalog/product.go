package catalog

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"carillon/server/push"
)

// LocalShards is how many shards a product has, unless it says so itself, in a store of one node. They all lie there, so they only divide what is
// read and locked at once, and a broadcast writes to each.
const LocalShards = 64

// Limits of products.
const (
	MaxShards            = 1 << 16 // push.Shard is 16 bits wide
	MaxName              = 200     // bytes of a name of a product or a key
	DefaultTokenLifetime = 30 * 24 * time.Hour
	MaxKeyTTL            = 24 * time.Hour // the longest that an idempotency key may be remembered
)

// Product is a tenant with its policies.
type Product struct {
	ID         push.ProductID
	Name       string // for people; may be empty
	Shards     int    // parts of its users; fixed when it is made
	Disabled   bool   // nobody connects and no request is taken
	FirstVisit push.FirstVisit
	Limits     push.Limits         // zero fields mean the defaults
	Sessions   *push.SessionPolicy // nil: none beside one live session per device; never changes, so copies share it

	// TokenLifetime is the longest that a device token may be good for; 0 means DefaultTokenLifetime.
	TokenLifetime time.Duration

	// JWKS is where the product publishes the keys that sign its device tokens (RFC 7517), beside those in the catalog or
	// instead of them; empty: nowhere. An id that a key in the catalog has, revoked or not, is that key's.
	JWKS string

	// Approval says which tasks a second person has to approve.
	Approval Approval

	Created  push.MilliTime
	Updated  push.MilliTime
	Revision uint64 // 1 when it is made, one more with each update
}

// Approval says which tasks of a product somebody else has to approve than who made them. The zero value is the default: those for everyone, and those for
// more than DefaultApprovalAbove users.
type Approval struct {
	Above        int  // more users than so many; 0 means DefaultApprovalAbove, below 0 however many need none
	EveryoneFree bool // those for everyone need none
}

// DefaultApprovalAbove is for how many users a task may be, unless the product says otherwise, without somebody else's approval.
const DefaultApprovalAbove = 10_000

// Needs reports whether a task needs approval: by how many users it is for, below 0 if it is for everyone, or nobody can tell.
func (a Approval) Needs(users int64) bool {
	switch {
	case users < 0:
		return !a.EveryoneFree
	case a.Above == 0:
		return users > DefaultApprovalAbove
	}
	return a.Above > 0 && users > int64(a.Above)
}

// MaxTokenLifetime returns the longest that a device token may be good for.
func (p *Product) MaxTokenLifetime() time.Duration {
	if p.TokenLifetime == 0 {
		return DefaultTokenLifetime
	}
	return p.TokenLifetime
}

// Check returns what is wrong with a product, KindInvalid, "bad_product"; nil if nothing is.
func (p *Product) Check() error {
	if err := p.check(); err != nil {
		return &push.Error{Kind: push.KindInvalid, Code: "bad_product", Detail: err.Error()}
	}
	return nil
}

func (p *Product) check() error {
	if err := p.ID.Check(); err != nil {
		return err
	}
	if err := checkName(p.Name); err != nil {
		return err
	}
	if p.Shards < 1 || p.Shards > MaxShards {
		return fmt.Errorf("a product has 1 to %d shards", MaxShards)
	}
	if p.TokenLifetime < 0 {
		return fmt.Errorf("the lifetime of tokens is not negative")
	}
	if p.JWKS != "" {
		if err := CheckJWKS(p.JWKS); err != nil {
			return err
		}
	}
	f := p.FirstVisit
	for _, s := range [...]push.StartAt{f.First, f.Later, f.Common} {
		if s > push.StartHead {
			return fmt.Errorf("first_visit starts at the beginning or at the head")
		}
	}
	return checkLimits(p.Limits)
}

func checkLimits(l push.Limits) error {
	counts := [...]int{l.BodyBytes, l.OwnMessages, l.OwnBytes, l.CommonMessages, l.CommonBytes, l.DevicesPerUser, l.Sessions}
	for _, n := range counts {
		if n < 0 {
			return fmt.Errorf("limits are not negative")
		}
	}
	for _, d := range [...]time.Duration{l.TTL, l.DeviceUnseen, l.KeyTTL} {
		if d < 0 || d%time.Millisecond != 0 {
			return fmt.Errorf("limits of time are whole milliseconds and not negative")
		}
	}
	if l.KeyTTL > MaxKeyTTL {
		return fmt.Errorf("an idempotency key is remembered for at most %v", MaxKeyTTL)
	}
	return nil
}

// MaxJWKS is the most bytes of the address of a key set.
const MaxJWKS = 1024

// CheckJWKS reports what is wrong with the address of a key set, nil if nothing is. Whether it may be reached is judged when
// it is: names change what they stand for.
func CheckJWKS(address string) error {
	const how = "the address of a key set is https://HOST/PATH of at most 1024 bytes, without user, password or fragment"
	u, err := url.Parse(address)
	if err != nil || len(address) > MaxJWKS || u.Opaque != "" || u.Hostname() == "" || u.User != nil ||
		strings.Contains(address, "#") || strings.ContainsFunc(address, func(r rune) bool { return r <= 0x20 || r >= 0x7f }) {
		return errors.New(how)
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
			return nil
		}
		return errors.New(how + "; http is for this machine (localhost) alone")
	}
	return errors.New(how)
}

// checkName reports what is wrong with a name that people give.
func checkName(s string) error {
	if len(s) > MaxName {
		return fmt.Errorf("a name has at most %d bytes", MaxName)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("a name is valid UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("a name holds no control characters")
		}
	}
	return nil
}

// NewProduct returns p as CreateProduct stores it. Implementations call it, with how many shards a product has there unless it says
// so itself.
func NewProduct(p Product, shards int, now push.MilliTime) (Product, error) {
	if p.Shards == 0 {
		p.Shards = shards
	}
	p.Created, p.Updated, p.Revision = now, now, 1
	return p, p.Check()
}

// ChangedProduct returns p as UpdateProduct stores it in place of old. Implementations call it.
func ChangedProduct(old, p Product, now push.MilliTime) (Product, error) {
	if p.Revision != 0 && p.Revision != old.Revision {
		return p, push.Errorf(push.KindConflict, "product_changed",
			"the product was changed by somebody else; read it again and repeat the change")
	}
	if p.Shards != 0 && p.Shards != old.Shards {
		return p, push.Errorf(push.KindInvalid, "shards_fixed", "the number of shards is fixed when a product is made")
	}
	p.Shards, p.Created, p.Updated, p.Revision = old.Shards, old.Created, now, old.Revision+1
	return p, p.Check()
}
