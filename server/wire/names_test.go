package wire

import "testing"

func TestType_NamesAndNumbersBelongTogether(t *testing.T) {
	for ty := Type(0); ty < 255; ty++ {
		got, ok := ParseType(ty.String())
		known := ty >= TypeConnect && ty <= TypeTags
		if ok != known || known && got != ty {
			t.Errorf("%d: got %d, %v from its name %q", ty, got, ok, ty)
		}
	}
	for _, s := range []string{"", "unknown", "Ping", "ping "} {
		if ty, ok := ParseType(s); ok {
			t.Errorf("%q: got %s, want none", s, ty)
		}
	}
}

func TestNames_ANumberOfALaterVersionIsUnknown(t *testing.T) {
	for _, got := range []string{
		Start(4).String(), CursorReason(4).String(), GapReason(3).String(), EventKind(0).String(), EventKind(3).String(),
		Duty(3).String(), Type(255).String(),
	} {
		if got != "unknown" {
			t.Errorf("got %q, want unknown", got)
		}
	}
}

func TestMember_SwitchKnowsTheNamesOfTheTable(t *testing.T) {
	for m := range memberCount {
		if got := memberOf([]byte(memberNames[m])); got != m {
			t.Errorf("%s: got %d, want %d", memberNames[m], got, m)
		}
	}
	for _, s := range []string{"", "typ", "Type", "types", "cursors"} {
		if got := memberOf([]byte(s)); got != memberCount {
			t.Errorf("%q: got member %s, want none", s, memberNames[got])
		}
	}
}
