package register_test

import (
	"errors"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

// The classes of these tests. Desktops and what is on no known platform have none.
var mobiles = map[push.Platform]string{push.PlatformAndroid: "mobile", push.PlatformIOS: "mobile", push.PlatformTablet: "mobile"}

// everyone is one class for each kind of machine, and one for the rest.
var everyone = map[push.Platform]string{
	push.PlatformAndroid: "mobile", push.PlatformIOS: "mobile", push.PlatformDesktop: "computer", push.PlatformWeb: "computer",
}

func perAccount(n int, e push.OnExcess) push.SessionRule {
	return push.SessionRule{Scope: push.PerAccount, Max: n, OnExcess: e}
}

func perClass(of string, n int, e push.OnExcess) push.SessionRule {
	return push.SessionRule{Scope: push.PerClass, Of: of, Max: n, OnExcess: e}
}

func perPlatform(of string, n int, e push.OnExcess) push.SessionRule {
	return push.SessionRule{Scope: push.PerPlatform, Of: of, Max: n, OnExcess: e}
}

const kick, reject = push.KickOldest, push.RejectNew

// seat reads "device:platform@epoch"; without an epoch it is a newcomer.
func seat(t *testing.T, text string) register.Seat {
	t.Helper()
	device, rest, _ := strings.Cut(text, ":")
	platform, epoch, _ := strings.Cut(rest, "@")
	p, ok := push.ParsePlatform(platform)
	if !ok {
		t.Fatalf("%q names no platform", text)
	}
	s := register.Seat{Device: push.DeviceID(device), Platform: p}
	for _, digit := range epoch {
		s.Epoch = 10*s.Epoch + push.SessionEpoch(digit-'0')
	}
	return s
}

func TestAdmit(t *testing.T) {
	for _, test := range []struct {
		name    string
		classes map[push.Platform]string
		dflt    string
		rules   []push.SessionRule
		present string // sessions that count, in any order
		comes   string
		goes    string // devices that go, in the order in which they are present
		refused string // the code; empty: it comes in
	}{
		{name: "without rules everybody stays",
			present: "a:android@1 b:android@2 c:ios@3", comes: "d:android"},

		{name: "one session in all: the first comes in", rules: []push.SessionRule{perAccount(1, kick)}, comes: "a:web"},
		{name: "one session in all: the other goes", rules: []push.SessionRule{perAccount(1, kick)},
			present: "a:web@1", comes: "b:ios", goes: "a"},
		{name: "one session in all: the newcomer is turned away", rules: []push.SessionRule{perAccount(1, reject)},
			present: "a:web@1", comes: "b:ios", refused: "session_limit"},

		{name: "one per platform: another platform stays", rules: []push.SessionRule{perPlatform("", 1, kick)},
			present: "a:ios@1 b:web@2 c:desktop@3", comes: "d:web", goes: "b"},
		{name: "one per platform: a new platform comes in", rules: []push.SessionRule{perPlatform("", 1, reject)},
			present: "a:ios@1 b:web@2", comes: "c:tv"},
		{name: "one per platform: the newcomer is turned away", rules: []push.SessionRule{perPlatform("", 1, reject)},
			present: "a:ios@1 b:web@2", comes: "c:web", refused: "session_limit"},

		{name: "one per class: another platform of the class goes", classes: everyone, dflt: "rest",
			rules: []push.SessionRule{perClass("", 1, kick)}, present: "a:android@1 b:web@2", comes: "c:ios", goes: "a"},
		{name: "one per class: each class has its place", classes: everyone, dflt: "rest",
			rules: []push.SessionRule{perClass("", 1, reject)}, present: "a:android@1 b:web@2", comes: "c:tv"},
		{name: "one per class: an unknown platform is of the default class", classes: everyone, dflt: "rest",
			rules: []push.SessionRule{perClass("", 1, kick)}, present: "a:android@1 b:tv@2", comes: "c:other", goes: "b"},
		{name: "one per class: without a default class an unknown platform is free", classes: everyone,
			rules: []push.SessionRule{perClass("", 1, reject)}, present: "a:other@1 b:tv@2 c:other@3", comes: "d:other"},

		{name: "desktop free plus one mobile: desktops stay", classes: mobiles, rules: []push.SessionRule{perClass("", 1, kick)},
			present: "a:desktop@1 b:desktop@2 c:android@3", comes: "d:desktop"},
		{name: "desktop free plus one mobile: the other mobile goes", classes: mobiles,
			rules:   []push.SessionRule{perClass("", 1, kick)},
			present: "a:desktop@1 b:desktop@2 c:android@3", comes: "d:tablet", goes: "c"},
		{name: "two computers and one mobile", classes: everyone,
			rules:   []push.SessionRule{perClass("mobile", 1, kick), perClass("computer", 2, kick)},
			present: "a:web@1 b:desktop@2 c:android@3", comes: "d:web", goes: "a"},

		{name: "at most N: up to N", rules: []push.SessionRule{perAccount(3, reject)}, present: "a:ios@1 b:web@2", comes: "c:tv"},
		{name: "at most N: the oldest goes, whatever the order", rules: []push.SessionRule{perAccount(3, kick)},
			present: "c:tv@30 a:ios@10 b:web@20", comes: "d:web", goes: "a"},
		{name: "at most N: one more is turned away", rules: []push.SessionRule{perAccount(3, reject)},
			present: "c:tv@30 a:ios@10 b:web@20", comes: "d:web", refused: "session_limit"},
		{name: "a policy that became stricter sends off as many as it takes", rules: []push.SessionRule{perAccount(2, kick)},
			present: "a:ios@4 b:web@2 c:tv@3 d:web@1", comes: "e:ios", goes: "b c d"},

		{name: "a reconnect does not kick itself", rules: []push.SessionRule{perAccount(1, kick)},
			present: "a:ios@1", comes: "a:ios"},
		{name: "a reconnect does not send another off", rules: []push.SessionRule{perAccount(2, kick)},
			present: "a:ios@1 b:web@2", comes: "a:ios"},
		{name: "a reconnect is not turned away for its own session", rules: []push.SessionRule{perAccount(1, reject)},
			present: "a:ios@1", comes: "a:ios"},
		{name: "a reconnect keeps its place under a policy that became stricter", rules: []push.SessionRule{perAccount(1, reject)},
			present: "a:ios@1 b:web@2 c:tv@3", comes: "b:web"},
		{name: "a reconnect has a place only where its session was", rules: []push.SessionRule{perPlatform("", 1, reject)},
			present: "a:ios@1 b:web@2", comes: "b:ios", refused: "session_limit"},

		{name: "ties are decided by the device", rules: []push.SessionRule{perAccount(2, kick)},
			present: "b:ios@5 a:web@5", comes: "c:tv", goes: "a"},

		{name: "several rules: nobody goes for one who goes", classes: everyone,
			rules:   []push.SessionRule{perAccount(3, kick), perClass("mobile", 1, kick)},
			present: "a:desktop@1 b:web@2 c:android@3", comes: "d:ios", goes: "c"},
		{name: "several rules: each is held", classes: everyone,
			rules:   []push.SessionRule{perAccount(2, kick), perClass("mobile", 1, kick)},
			present: "a:desktop@1 b:web@2 c:android@3", comes: "d:ios", goes: "a c"},
		{name: "several rules: the narrow one makes room in the wide one", classes: everyone,
			rules:   []push.SessionRule{perAccount(3, reject), perClass("mobile", 1, kick)},
			present: "a:desktop@1 b:web@2 c:android@3", comes: "d:ios", goes: "c"},
		{name: "several rules: nobody goes if one turns the newcomer away", classes: everyone,
			rules:   []push.SessionRule{perAccount(2, reject), perClass("mobile", 1, kick)},
			present: "a:desktop@1 b:web@2 c:android@3", comes: "d:ios", refused: "session_limit"},
		{name: "several rules: the narrow one turns away before the wide one kicks",
			rules:   []push.SessionRule{perAccount(1, kick), perPlatform("ios", 1, reject)},
			present: "a:ios@1", comes: "b:ios", refused: "session_limit"},

		// Sessions that were there before their room lost its lease.
		{name: "anew: the older one goes, which it is itself", rules: []push.SessionRule{perAccount(1, kick)},
			present: "b:web@9", comes: "a:ios@5", refused: "replaced"},
		{name: "anew: the older one goes, which is the other", rules: []push.SessionRule{perAccount(1, kick)},
			present: "b:web@3", comes: "a:ios@5", goes: "b"},
		{name: "anew: whoever was first keeps the place", rules: []push.SessionRule{perAccount(1, reject)},
			present: "b:web@9", comes: "a:ios@5", goes: "b"},
		{name: "anew: whoever was second does not", rules: []push.SessionRule{perAccount(1, reject)},
			present: "b:web@3", comes: "a:ios@5", refused: "session_limit"},
		{name: "anew: the last to come goes", rules: []push.SessionRule{perAccount(2, reject)},
			present: "b:web@9 c:tv@7", comes: "a:ios@5", goes: "b"},
		{name: "anew: there is room", rules: []push.SessionRule{perAccount(2, kick)}, present: "b:web@9", comes: "a:ios@5"},
		{name: "anew: the same session once more", rules: []push.SessionRule{perAccount(2, kick)},
			present: "a:ios@5 b:web@9", comes: "a:ios@5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			policy, err := push.NewSessionPolicy(push.SessionRules{Classes: test.classes, Default: test.dflt, Rules: test.rules})
			if err != nil {
				t.Fatal(err)
			}
			newcomer := seat(t, test.comes)
			var others []register.Seat
			var own *register.Seat
			for _, text := range strings.Fields(test.present) {
				if s := seat(t, text); s.Device == newcomer.Device {
					own = &s
				} else {
					others = append(others, s)
				}
			}
			err = register.Admit(newcomer, own, others, policy.LimitsOf(newcomer.Platform))
			if test.refused != "" {
				var e *push.Error
				if !errors.As(err, &e) || e.Kind != push.KindConflict || e.Code != test.refused {
					t.Fatalf("got %v, want KindConflict, code %q", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatalf("it is turned away: %v", err)
			}
			var goes []string
			for _, s := range others {
				if s.Goes {
					goes = append(goes, string(s.Device))
				}
			}
			if got := strings.Join(goes, " "); got != test.goes {
				t.Errorf("goes: got %q, want %q", got, test.goes)
			}
		})
	}
}

func TestAdmit_RefusalNamesTheRuleAndNobody(t *testing.T) {
	policy, err := push.NewSessionPolicy(push.SessionRules{Classes: mobiles, Rules: []push.SessionRule{perClass("mobile", 1, reject)}})
	if err != nil {
		t.Fatal(err)
	}
	others := []register.Seat{seat(t, "hunter2:ios@1")}
	err = register.Admit(seat(t, "b:android"), nil, others, policy.LimitsOf(push.PlatformAndroid))
	var e *push.Error
	if !errors.As(err, &e) || !strings.Contains(e.Detail, "at most 1 session of class mobile") || strings.Contains(e.Error(), "hunter2") {
		t.Errorf("got %v, want a refusal that names the rule and not the other device", err)
	}
}

func TestAdmit_AllocatesNothing(t *testing.T) {
	policy, err := push.NewSessionPolicy(push.SessionRules{Rules: []push.SessionRule{perAccount(2, kick), perPlatform("", 1, kick)}})
	if err != nil {
		t.Fatal(err)
	}
	others := []register.Seat{seat(t, "a:ios@1"), seat(t, "b:web@2"), seat(t, "c:tv@3")}
	newcomer, limits := seat(t, "d:web"), policy.LimitsOf(push.PlatformWeb)
	if got := testing.AllocsPerRun(100, func() {
		for i := range others {
			others[i].Goes = false
		}
		if err := register.Admit(newcomer, nil, others, limits); err != nil || !others[0].Goes || !others[1].Goes {
			t.Fatalf("got %+v, %v", others, err)
		}
	}); got > 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}
