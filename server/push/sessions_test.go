package push

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func mustPolicy(t *testing.T, r SessionRules) *SessionPolicy {
	t.Helper()
	p, err := NewSessionPolicy(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNewSessionPolicy_RefusesWhatCannotBeMeant(t *testing.T) {
	rules := func(rs ...SessionRule) SessionRules {
		return SessionRules{Classes: map[Platform]string{PlatformTV: "tv"}, Default: "rest", Rules: rs}
	}
	for _, test := range []struct {
		name string
		r    SessionRules
	}{
		{"a class without a name", SessionRules{Classes: map[Platform]string{PlatformTV: ""}}},
		{"a class with capitals", SessionRules{Classes: map[Platform]string{PlatformTV: "TV"}}},
		{"a class with a blank", SessionRules{Classes: map[Platform]string{PlatformTV: "a b"}}},
		{"a class in another script", SessionRules{Classes: map[Platform]string{PlatformTV: "ä"}}},
		{"a long name of a class", SessionRules{Default: strings.Repeat("a", MaxClassName+1)}},
		{"a bad default class", SessionRules{Default: "a/b"}},
		{"a platform that there is not", SessionRules{Classes: map[Platform]string{platformCount: "a"}}},
		{"no session", rules(SessionRule{Max: 0})},
		{"fewer than none", rules(SessionRule{Max: -1})},
		{"more than a user can have", rules(SessionRule{Max: MaxSessionMax + 1})},
		{"a scope that there is not", rules(SessionRule{Scope: scopeCount, Max: 1})},
		{"an excess that there is not", rules(SessionRule{OnExcess: RejectNew + 1, Max: 1})},
		{"two sessions of a device", rules(SessionRule{Scope: PerDevice, Max: 2})},
		{"a device that cannot reconnect", rules(SessionRule{Scope: PerDevice, Max: 1, OnExcess: RejectNew})},
		{"one device by name", rules(SessionRule{Scope: PerDevice, Of: "phone", Max: 1})},
		{"one account by name", rules(SessionRule{Of: "alice", Max: 1})},
		{"a class that nobody has", rules(SessionRule{Scope: PerClass, Of: "mobile", Max: 1})},
		{"a platform by a wrong name", rules(SessionRule{Scope: PerPlatform, Of: "windows", Max: 1})},
		{"the same twice", rules(SessionRule{Max: 1}, SessionRule{Max: 2})},
		{"too many rules", rules(make([]SessionRule, MaxSessionRules+1)...)},
	} {
		if p, err := NewSessionPolicy(test.r); err == nil {
			t.Errorf("%s: got %+v, want an error", test.name, p)
		}
	}
	var most []SessionRule
	for _, p := range []string{"other", "web", "android", "ios", "desktop", "tablet", "tv", ""} {
		most = append(most, SessionRule{Scope: PerPlatform, Of: p, Max: 1})
	}
	for i := range 6 {
		most = append(most, SessionRule{Scope: PerClass, Of: fmt.Sprint("c", i), Max: 1})
	}
	most = append(most, SessionRule{Scope: PerClass, Max: 1}, SessionRule{Max: 1})
	classes := map[Platform]string{}
	for i := range 6 {
		classes[Platform(i)] = fmt.Sprint("c", i)
	}
	if _, err := NewSessionPolicy(SessionRules{Classes: classes, Rules: most}); err != nil || len(most) != MaxSessionRules {
		t.Errorf("%d rules: %v", len(most), err)
	}
}

func TestSessionPolicy_ClassesAreTheMapsAndOtherwiseTheDefault(t *testing.T) {
	p := mustPolicy(t, SessionRules{Classes: map[Platform]string{PlatformIOS: "mobile", PlatformOther: "odd"}, Default: "rest"})
	none := mustPolicy(t, SessionRules{Classes: map[Platform]string{PlatformIOS: "mobile"}})
	for _, test := range []struct {
		p    *SessionPolicy
		at   Platform
		want string
	}{
		{p, PlatformIOS, "mobile"}, {p, PlatformTV, "rest"}, {p, PlatformOther, "odd"},
		{p, platformCount + 9, "odd"}, // one that a later version knows is another
		{none, PlatformTV, ""}, {none, PlatformIOS, "mobile"}, {nil, PlatformIOS, ""},
	} {
		if got := test.p.ClassOf(test.at); got != test.want {
			t.Errorf("class of %v: got %q, want %q", test.at, got, test.want)
		}
	}
}

func TestSessionPolicy_LimitsSayWhatIsCountedNarrowestFirst(t *testing.T) {
	p := mustPolicy(t, SessionRules{
		Classes: map[Platform]string{PlatformAndroid: "mobile", PlatformIOS: "mobile", PlatformDesktop: "desk"},
		Rules: []SessionRule{
			{Scope: PerAccount, Max: 5, OnExcess: RejectNew},
			{Scope: PerClass, Max: 2},
			{Scope: PerClass, Of: "mobile", Max: 1},
			{Scope: PerDevice, Max: 1},
			{Scope: PerPlatform, Of: "ios", Max: 4},
		},
	})
	all := AllPlatforms()
	mobile := PlatformSet(0).Add(PlatformAndroid).Add(PlatformIOS)
	account := SessionLimit{all, 5, true, "at most 5 sessions per account (reject_new)"}
	for at, want := range map[Platform][]SessionLimit{
		PlatformIOS: {
			{PlatformSet(0).Add(PlatformIOS), 4, false, "at most 4 sessions of platform ios (kick_oldest)"},
			{mobile, 2, false, "at most 2 sessions per class (kick_oldest)"},
			{mobile, 1, false, "at most 1 session of class mobile (kick_oldest)"},
			account,
		},
		PlatformDesktop: {{PlatformSet(0).Add(PlatformDesktop), 2, false, "at most 2 sessions per class (kick_oldest)"}, account},
		PlatformTV:      {account}, // it has no class, so no rule per class is for it
	} {
		if got := p.LimitsOf(at); !reflect.DeepEqual(got, want) {
			t.Errorf("limits of %v:\n got %+v\nwant %+v", at, got, want)
		}
	}
}

func TestSessionPolicy_ThatSaysNothingIsNil(t *testing.T) {
	p, err := NewSessionPolicy(SessionRules{Classes: map[Platform]string{}})
	if p != nil || err != nil || p.LimitsOf(PlatformTV) != nil || !reflect.DeepEqual(p.Rules(), SessionRules{}) {
		t.Errorf("got %+v, %v, want nil", p, err)
	}
}

func TestSessionPolicy_SharesNothingWithWhoMadeIt(t *testing.T) {
	given := SessionRules{Classes: map[Platform]string{PlatformTV: "tv"}, Rules: []SessionRule{{Max: 1}}}
	p := mustPolicy(t, given)
	spoil := func(r SessionRules) { r.Classes[PlatformTV], r.Rules[0].Max = "x", 9 }
	spoil(given)
	spoil(p.Rules())
	if got := p.Rules(); got.Classes[PlatformTV] != "tv" || got.Rules[0].Max != 1 {
		t.Errorf("what others did shows in the policy: %+v", got)
	}
}

func TestSessionWords_AreReadAsTheyAreWritten(t *testing.T) {
	for s := range scopeCount {
		if got, ok := ParseSessionScope(s.String()); !ok || got != s {
			t.Errorf("%v: got %v, %v", s, got, ok)
		}
	}
	for _, e := range []OnExcess{KickOldest, RejectNew} {
		if got, ok := ParseOnExcess(e.String()); !ok || got != e {
			t.Errorf("%v: got %v, %v", e, got, ok)
		}
	}
	_, scope := ParseSessionScope("household")
	if _, excess := ParseOnExcess(""); scope || excess {
		t.Error("words that mean nothing are taken")
	}
}
