package catalog

import (
	"bytes"
	"encoding/json"
	"errors"

	"carillon/server/push"
)

// policyRecord is a session policy as it is stored in its product. Platforms, scopes and what becomes of an excess are
// written by their names. A name or a member that this version does not know makes the product unreadable: nobody may be let
// in by half of a policy, and nobody may write one back.
type policyRecord struct {
	Classes map[string]string `json:"classes"`
	Default string            `json:"default_class"`
	Rules   []ruleRecord      `json:"rules"`
}

type ruleRecord struct {
	Scope    string `json:"scope"`
	Of       string `json:"of"`
	Max      int    `json:"max"`
	OnExcess string `json:"on_excess"`
}

// UnmarshalJSON reads a policy that holds nothing else.
func (r *policyRecord) UnmarshalJSON(b []byte) error {
	type plain policyRecord // without this method
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode((*plain)(r))
}

// recordOf returns the policy as it is stored, nil if there is none.
func recordOf(p *push.SessionPolicy) *policyRecord {
	if p == nil {
		return nil
	}
	rules := p.Rules()
	r := &policyRecord{Classes: make(map[string]string, len(rules.Classes)), Default: rules.Default}
	for at, class := range rules.Classes {
		r.Classes[at.String()] = class
	}
	for _, rule := range rules.Rules {
		r.Rules = append(r.Rules, ruleRecord{rule.Scope.String(), rule.Of, rule.Max, rule.OnExcess.String()})
	}
	return r
}

// policy reads what recordOf wrote.
func (r *policyRecord) policy() (*push.SessionPolicy, error) {
	if r == nil {
		return nil, nil
	}
	rules := push.SessionRules{Default: r.Default}
	for name, class := range r.Classes {
		at, ok := push.ParsePlatform(name)
		if !ok {
			return nil, errors.New("a session policy with a platform that is not known here")
		}
		if rules.Classes == nil {
			rules.Classes = make(map[push.Platform]string, len(r.Classes))
		}
		rules.Classes[at] = class
	}
	for _, rule := range r.Rules {
		scope, okScope := push.ParseSessionScope(rule.Scope)
		excess, okExcess := push.ParseOnExcess(rule.OnExcess)
		if !okScope || !okExcess {
			return nil, errors.New("a session policy with a rule that is not known here")
		}
		rules.Rules = append(rules.Rules, push.SessionRule{Scope: scope, Of: rule.Of, Max: rule.Max, OnExcess: excess})
	}
	return push.NewSessionPolicy(rules)
}
