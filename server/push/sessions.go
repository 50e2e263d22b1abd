package push

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Limits of a session policy.
const (
	MaxSessionRules = 16
	MaxSessionMax   = 1000 // as many devices as a user can have
	MaxClassName    = 32
)

// SessionScope says which sessions of a user a rule counts together. Wider ones come first.
type SessionScope uint8

// The scopes.
const (
	PerAccount  SessionScope = iota // all of the user
	PerClass                        // those on platforms of one class; platforms without a class are not counted
	PerPlatform                     // those on one platform
	PerDevice                       // those of one device: there is never more than one, whatever the policy says
	scopeCount
)

var scopeNames = [scopeCount]string{"account", "class", "platform", "device"}

// String returns the scope's name as the REST interface writes it.
func (s SessionScope) String() string { return scopeNames[min(s, PerDevice)] }

// ParseSessionScope returns the scope of that name; ok is false if there is none.
func ParseSessionScope(s string) (scope SessionScope, ok bool) {
	i := slices.Index(scopeNames[:], s)
	return SessionScope(max(i, 0)), i >= 0
}

// OnExcess says what becomes of one session too many.
type OnExcess uint8

// What can become of it.
const (
	KickOldest OnExcess = iota // the newcomer comes in, and the oldest goes
	RejectNew                  // the newcomer is turned away
)

var excessNames = [...]string{"kick_oldest", "reject_new"}

// String returns the name as the REST interface writes it.
func (e OnExcess) String() string { return excessNames[min(e, RejectNew)] }

// ParseOnExcess returns what has that name; ok is false if nothing has.
func ParseOnExcess(s string) (e OnExcess, ok bool) {
	i := slices.Index(excessNames[:], s)
	return OnExcess(max(i, 0)), i >= 0
}

// SessionRule bounds how many sessions of a user may be live at once.
type SessionRule struct {
	Scope    SessionScope
	Of       string // the one class or platform that the rule is for; empty: each
	Max      int
	OnExcess OnExcess
}

// String says the rule in words that may be shown to whoever it turned away.
func (r SessionRule) String() string {
	noun := "sessions"
	if r.Max == 1 {
		noun = "session"
	}
	of := "per " + r.Scope.String()
	if r.Of != "" {
		of = "of " + r.Scope.String() + " " + r.Of
	}
	return fmt.Sprintf("at most %d %s %s (%v)", r.Max, noun, of, r.OnExcess)
}

// SessionRules are a session policy as an operator writes it.
type SessionRules struct {
	Classes map[Platform]string // a platform that is missing has the default class
	Default string              // the default class; empty: none
	Rules   []SessionRule
}

// SessionPolicy is a product's session policy, made ready for being asked at every connect. It never changes, so it is
// shared freely. Nil is the policy that says nothing: no classes, and no rule beside one live session per device.
type SessionPolicy struct {
	rules   SessionRules
	classes [platformCount]string
	limits  [platformCount][]SessionLimit
}

// SessionLimit is a rule as it applies to a session on one platform: with it, at most Max sessions of its user may be live
// on Platforms. Class and scope are resolved, so that whoever judges it needs to know of a session its platform and its age
// alone.
type SessionLimit struct {
	Platforms PlatformSet
	Max       int
	Reject    bool   // the newcomer is turned away; otherwise the oldest go
	Rule      string // the rule in words, for whoever is turned away
}

// NewSessionPolicy returns the policy of these rules, nil if they say nothing, and an error that may be shown if they cannot
// be meant.
func NewSessionPolicy(r SessionRules) (*SessionPolicy, error) {
	if len(r.Classes) == 0 && r.Default == "" && len(r.Rules) == 0 {
		return nil, nil
	}
	p := &SessionPolicy{rules: r.clone()}
	if err := p.classify(); err != nil {
		return nil, err
	}
	if len(r.Rules) > MaxSessionRules {
		return nil, fmt.Errorf("a session policy has at most %d rules", MaxSessionRules)
	}
	for i, rule := range r.Rules {
		if err := p.checkRule(rule); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		for _, before := range r.Rules[:i] {
			if before.Scope == rule.Scope && before.Of == rule.Of {
				return nil, fmt.Errorf("rule %d: there is one of the same scope before it", i+1)
			}
		}
	}
	p.resolve()
	return p, nil
}

func (r SessionRules) clone() SessionRules {
	r.Classes, r.Rules = maps.Clone(r.Classes), slices.Clone(r.Rules)
	return r
}

// classify fills in the class of every platform.
func (p *SessionPolicy) classify() error {
	if p.rules.Default != "" {
		if err := CheckClass(p.rules.Default); err != nil {
			return err
		}
	}
	for at := range p.classes {
		p.classes[at] = p.rules.Default
	}
	for at, class := range p.rules.Classes {
		if at >= platformCount {
			return fmt.Errorf("a class is given to a platform that there is not")
		}
		if err := CheckClass(class); err != nil {
			return err
		}
		p.classes[at] = class
	}
	return nil
}

// CheckClass reports what is wrong with the name of a class, nil if nothing is.
func CheckClass(s string) error {
	ok := s != "" && len(s) <= MaxClassName
	for i := 0; i < len(s) && ok; i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
	}
	if !ok {
		return fmt.Errorf("the name of a class has 1 to %d of a-z, 0-9, '-' and '_'", MaxClassName)
	}
	return nil
}

func (p *SessionPolicy) checkRule(r SessionRule) error {
	switch {
	case r.Scope > PerDevice || r.OnExcess > RejectNew:
		return fmt.Errorf("its scope or on_excess is none that there is")
	case r.Max < 1 || r.Max > MaxSessionMax:
		return fmt.Errorf("max is 1 to %d", MaxSessionMax)
	case r.Scope == PerDevice && (r.Max != 1 || r.OnExcess != KickOldest || r.Of != ""):
		return fmt.Errorf("a device has one session, and a newer one takes its place: nothing else can be said per device")
	case r.Of == "":
		return nil
	case r.Scope == PerClass:
		if !slices.Contains(p.classes[:], r.Of) {
			return fmt.Errorf("no platform has the class that it is for")
		}
		return nil
	case r.Scope == PerPlatform:
		if _, ok := ParsePlatform(r.Of); !ok {
			return fmt.Errorf("there is no platform of that name")
		}
		return nil
	}
	return fmt.Errorf("only rules per class or per platform can be for one of them")
}

// resolve works out what each platform is bound by. Narrow scopes come first: what they turned away or sent off is not
// counted by the wider ones, so that nobody has to go for the sake of somebody who does not stay.
func (p *SessionPolicy) resolve() {
	rules := slices.Clone(p.rules.Rules)
	slices.SortStableFunc(rules, func(a, b SessionRule) int { return cmp.Compare(b.Scope, a.Scope) })
	for at := range platformCount {
		for _, r := range rules {
			if set := p.countedWith(at, r); set != 0 {
				p.limits[at] = append(p.limits[at], SessionLimit{
					Platforms: set, Max: r.Max, Reject: r.OnExcess == RejectNew, Rule: r.String(),
				})
			}
		}
	}
}

// countedWith returns the platforms whose sessions a rule counts together with one on that platform; none if the rule is
// not for it.
func (p *SessionPolicy) countedWith(at Platform, r SessionRule) (set PlatformSet) {
	switch class := p.classes[at]; r.Scope {
	case PerAccount:
		return AllPlatforms()
	case PerClass:
		for other, c := range p.classes {
			if class != "" && c == class && (r.Of == "" || r.Of == class) {
				set = set.Add(Platform(other))
			}
		}
	case PerPlatform:
		if r.Of == "" || r.Of == at.String() {
			set = set.Add(at)
		}
	case PerDevice: // holds anyway
	}
	return set
}

// ClassOf returns the class of devices on a platform; empty if the policy gives it none.
func (p *SessionPolicy) ClassOf(at Platform) string {
	if p == nil {
		return ""
	}
	return p.classes[known(at)]
}

// known returns the platform, or PlatformOther for one that there is not.
func known(at Platform) Platform {
	if at >= platformCount {
		return PlatformOther
	}
	return at
}

// LimitsOf returns what a session on a platform is bound by, in the order in which it is judged. Nobody changes it.
func (p *SessionPolicy) LimitsOf(at Platform) []SessionLimit {
	if p == nil {
		return nil
	}
	return p.limits[known(at)]
}

// Rules returns the policy as it was written; what it returns is the caller's.
func (p *SessionPolicy) Rules() SessionRules {
	if p == nil {
		return SessionRules{}
	}
	return p.rules.clone()
}
