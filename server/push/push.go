// Package push holds the words the whole gateway shares: who a message is for, what a message is, and how
// operations fail. It imports only the standard library, and everything else may import it.
//
// The words:
//
//   - a [ProductID] is a tenant; nothing crosses products;
//   - a [UserID] is an account of a product, a [DeviceID] one installation of that user;
//   - a [MsgID] names a message. It never orders messages: a [Position] inside a slot does;
//   - a slot ([SlotKind]) is an ordered log. A device reads exactly two: the own slot of its user and the common
//     slot of its user's [Shard];
//   - a [Cursor] says how far one device has acknowledged both.
//
// Values are plain data and safe to copy. A *[Message] is shared by many goroutines once it was published: nobody
// changes it, or the slices it holds, after that.
package push

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of identifiers and attributes, in bytes. They are part of the REST contract (openapi.yaml) and of the wire
// contract (api/README.md).
const (
	MaxProductID   = 64
	MaxUserID      = 128
	MaxDeviceID    = 128
	MaxRef         = 128
	MaxCollapseKey = 128
	MaxHeaders     = 16   // headers a message
	MaxHeaderBytes = 4096 // names and values of all headers of a message
)

// ProductID names a tenant: 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit.
type ProductID string

// UserID names an account of a product: 1 to 128 bytes of UTF-8 without control characters. It is opaque.
type UserID string

// DeviceID names one installation of a user, under the same rules as [UserID]. It is unique within its user.
type DeviceID string

// MsgID names a message, unique across the cluster. In JSON it is a string of decimal digits, since JSON numbers lose
// digits above 2^53. Zero is no message.
type MsgID int64

// RoomID names a room node. BootID names one life of it: a room that restarts has the same RoomID and another BootID.
type (
	RoomID string
	BootID uint64
)

// SessionEpoch orders the sessions of one device: of two, the one with the higher epoch is the live one.
type SessionEpoch uint64

// Shard is one of the fixed number of parts of a product's users.
type Shard uint16

// ShardOf returns the shard of a user in a product of n shards. It is FNV-1a (64 bit) over the user's bytes, modulo n;
// it can never change, since what is stored lies by it.
func ShardOf(u UserID, n int) Shard {
	h := fnv.New64a()
	h.Write([]byte(u))
	return Shard(h.Sum64() % uint64(n))
}

// Check reports what is wrong with a product id, nil if nothing is.
func (p ProductID) Check() error {
	if p == "" || len(p) > MaxProductID {
		return fmt.Errorf("a product id has 1 to %d characters", MaxProductID)
	}
	for i := 0; i < len(p); i++ {
		c := p[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-' && c != '_') {
			return fmt.Errorf("a product id holds a-z, 0-9, '-' and '_' and begins with a letter or digit")
		}
	}
	return nil
}

// Check reports what is wrong with a user id, nil if nothing is.
func (u UserID) Check() error { return checkName("a user id", string(u), MaxUserID) }

// Check reports what is wrong with a device id, nil if nothing is.
func (d DeviceID) Check() error { return checkName("a device id", string(d), MaxDeviceID) }

func checkName(what, s string, most int) error {
	if s == "" || len(s) > most {
		return fmt.Errorf("%s has 1 to %d bytes", what, most)
	}
	return checkText(what, s)
}

func checkText(what, s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is valid UTF-8", what)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return fmt.Errorf("%s holds no control characters", what)
	}
	return nil
}

// String returns the id in decimal.
func (id MsgID) String() string { return strconv.FormatInt(int64(id), 10) }

// ParseMsgID reads what [MsgID.String] wrote: 1 to 19 decimal digits, above zero, no sign, no leading zero.
func ParseMsgID(s string) (MsgID, error) {
	if s == "" || len(s) > 19 || s[0] < '1' || s[0] > '9' {
		return 0, fmt.Errorf("a message id is a decimal number above zero")
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a message id is a decimal number above zero")
	}
	return MsgID(n), nil
}

// Platform is the kind of machine a device is. The zero value is PlatformOther.
type Platform uint8

// The platforms.
const (
	PlatformOther Platform = iota
	PlatformWeb
	PlatformAndroid
	PlatformIOS
	PlatformDesktop
	PlatformTablet
	PlatformTV
	platformCount
)

var platformNames = [platformCount]string{"other", "web", "android", "ios", "desktop", "tablet", "tv"}

// String returns the platform's name as tokens and the REST interface write it.
func (p Platform) String() string {
	if p < platformCount {
		return platformNames[p]
	}
	return "other"
}

// ParsePlatform returns the platform of that name; ok is false if there is none.
func ParsePlatform(s string) (p Platform, ok bool) {
	for i, n := range platformNames {
		if n == s {
			return Platform(i), true
		}
	}
	return PlatformOther, false
}

// PlatformSet is a set of platforms. The empty set in a [Filter] means every platform.
type PlatformSet uint8

// AllPlatforms returns the set of all platforms.
func AllPlatforms() PlatformSet { return 1<<platformCount - 1 }

// Add returns the set with p in it.
func (s PlatformSet) Add(p Platform) PlatformSet { return s | 1<<p }

// Has reports whether p is in the set.
func (s PlatformSet) Has(p Platform) bool { return s&(1<<p) != 0 }

// Platforms returns the members in their fixed order.
func (s PlatformSet) Platforms() []Platform {
	var ps []Platform
	for p := Platform(0); p < platformCount; p++ {
		if s.Has(p) {
			ps = append(ps, p)
		}
	}
	return ps
}

// MilliTime is a moment in milliseconds since 1970 UTC, as it is stored and sent. Zero is no moment.
type MilliTime int64

// Milli returns t as a MilliTime.
func Milli(t time.Time) MilliTime { return MilliTime(t.UnixMilli()) }

// Time returns m as a time.Time in UTC.
func (m MilliTime) Time() time.Time { return time.UnixMilli(int64(m)).UTC() }

// Add returns m moved by d.
func (m MilliTime) Add(d time.Duration) MilliTime { return m + MilliTime(d.Milliseconds()) }
