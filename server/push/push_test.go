package push

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestProductID_CheckTakesItsAlphabetAlone(t *testing.T) {
	for _, c := range []struct {
		id ProductID
		ok bool
	}{
		{"dev", true}, {"a", true}, {"0", true}, {"a-b_c9", true}, {ProductID(strings.Repeat("a", MaxProductID)), true},
		{"", false}, {"-a", false}, {"_a", false}, {"A", false}, {"a b", false}, {"a.b", false}, {"ä", false},
		{"a{b}", false}, {"a:b", false}, {"a\x00", false}, {ProductID(strings.Repeat("a", MaxProductID+1)), false},
	} {
		if err := c.id.Check(); (err == nil) != c.ok {
			t.Errorf("%q: got %v, want ok %v", c.id, err, c.ok)
		}
	}
}

func TestUserAndDeviceID_CheckTakesTextWithoutControlCharacters(t *testing.T) {
	for _, c := range []struct {
		id string
		ok bool
	}{
		{"alice", true}, {" ", true}, {"a{b}:c", true}, {"ü🔔", true}, {"\u0085", true}, {strings.Repeat("a", 128), true},
		{"", false}, {strings.Repeat("a", 129), false}, {strings.Repeat("ü", 65), false}, {"a\x00b", false},
		{"a\nb", false}, {"a\x1f", false}, {"a\x7f", false}, {"a\xff", false}, {"\xed\xa0\x80", false},
	} {
		if err := UserID(c.id).Check(); (err == nil) != c.ok {
			t.Errorf("user %q: got %v, want ok %v", c.id, err, c.ok)
		}
		if err := DeviceID(c.id).Check(); (err == nil) != c.ok {
			t.Errorf("device %q: got %v, want ok %v", c.id, err, c.ok)
		}
	}
}

func TestShardOf_NeverChanges(t *testing.T) {
	// FNV-1a over the bytes, worked out apart from this code. What is stored lies by these numbers.
	for _, c := range []struct {
		user UserID
		n    int
		want Shard
	}{
		{"alice", 64, 7}, {"alice", 1024, 263}, {"bob", 64, 20},
		{"bob", 1024, 596}, {"cathy", 64, 12}, {"ü", 1024, 1002}, {"", 1024, 805},
		{"alice", 1, 0},
	} {
		if got := ShardOf(c.user, c.n); got != c.want {
			t.Errorf("%q of %d: got %d, want %d", c.user, c.n, got, c.want)
		}
	}
}

func TestShardOf_SpreadsUsers(t *testing.T) {
	const shards, users = 64, 64000
	var count [shards]int
	for i := range users {
		count[ShardOf(UserID(fmt.Sprintf("user-%d", i)), shards)]++
	}
	for s, n := range count {
		if n < users/shards/2 || n > users/shards*2 {
			t.Errorf("shard %d has %d of %d users", s, n, users)
		}
	}
}

func TestMsgID_StringAndParseBelongTogether(t *testing.T) {
	for _, id := range []MsgID{1, 9, 10, 1 << 53, 1<<53 + 1, math.MaxInt64 - 1, math.MaxInt64} {
		if got, err := ParseMsgID(id.String()); err != nil || got != id {
			t.Errorf("%d: got %d, %v", id, got, err)
		}
	}
	for _, s := range []string{
		"", "0", "00", "01", "-1", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "a", "9223372036854775808",
		"18446744073709551617", "99999999999999999999", strings.Repeat("1", 1000), "1_000", "١",
	} {
		if id, err := ParseMsgID(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, id)
		} else if len(s) > 2 && strings.Contains(err.Error(), s) {
			t.Errorf("%q stands in the error %q", s, err)
		}
	}
}

func TestPlatform_NamesSetsAndOrder(t *testing.T) {
	all := []Platform{
		PlatformOther, PlatformWeb, PlatformAndroid, PlatformIOS, PlatformDesktop, PlatformTablet, PlatformTV,
	}
	var set PlatformSet
	for i, p := range all {
		if got, ok := ParsePlatform(p.String()); !ok || got != p {
			t.Errorf("%s: got %d, %v from its name", p, got, ok)
		}
		if set.Has(p) {
			t.Errorf("%s is in the set before it was added", p)
		}
		set = set.Add(p)
		if got := set.Platforms(); !slices.Equal(got, all[:i+1]) {
			t.Errorf("got %v, want %v", got, all[:i+1])
		}
	}
	for _, s := range []string{"", "Web", "phone", "web "} {
		if p, ok := ParsePlatform(s); ok {
			t.Errorf("%q: got %s, want none", s, p)
		}
	}
	if got := Platform(200).String(); got != "other" {
		t.Errorf("got %q for a platform without a name, want other", got)
	}
}

func TestMilliTime_KeepsTheMillisecond(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 1, 0, 123999999, time.FixedZone("", 3600))
	m := Milli(at)
	if want := MilliTime(1767222060123); m != want {
		t.Errorf("got %d, want %d", m, want)
	}
	if got, want := m.Time(), at.UTC().Truncate(time.Millisecond); !got.Equal(want) || got.Location() != time.UTC {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := m.Add(-1500*time.Millisecond), m-1500; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestError_KindOfFindsTheFirstInTheChain(t *testing.T) {
	cause := errors.New("disk on fire")
	e := &Error{Kind: KindUnavailable, Code: "store_unavailable", Detail: "try again", Err: cause}
	for _, c := range []struct {
		err  error
		want Kind
	}{
		{e, KindUnavailable}, {fmt.Errorf("saver: append: %w", e), KindUnavailable}, {cause, KindInternal},
		{nil, KindInternal}, {&Error{Kind: KindInvalid, Err: e}, KindInvalid},
		{errors.Join(cause, Errorf(KindLimited, "slow_down", "at most %d", 20)), KindLimited},
	} {
		if got := KindOf(c.err); got != c.want {
			t.Errorf("%v: got %d, want %d", c.err, got, c.want)
		}
	}
	if !errors.Is(e, cause) {
		t.Error("the cause is not in the chain")
	}
	if got, want := e.Error(), "store_unavailable: try again: disk on fire"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Errorf(KindLimited, "slow_down", "at most %d", 20).Error(), "slow_down: at most 20"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (&Error{Code: "gone"}).Error(), "gone"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
