package center

import (
	adminapi "carillon/server/center/api/admin"
	"carillon/server/center/strictjson"
	"carillon/server/push"
)

const (
	inPolicyClasses = iota
	inPolicyDefault
	inPolicyRules
)

const (
	inRuleScope = iota
	inRuleMax
	inRuleOf
	inRuleOnExcess
)

// The words of rules and classes, in the order of their numbers.
var (
	scopeWords    = []string{push.PerAccount.String(), push.PerClass.String(), push.PerPlatform.String(), push.PerDevice.String()}
	excessWords   = []string{push.KickOldest.String(), push.RejectNew.String()}
	platformWords = platformNames()
)

var (
	policyShape   = strictjson.NewShape(0, "classes", "default_class", "rules")
	ruleShape     = strictjson.NewShape(2, "scope", "max", "of", "on_excess")
	classMapShape = strictjson.NewShape(0, platformWords...)
)

func platformNames() []string {
	var names []string
	for _, p := range push.AllPlatforms().Platforms() {
		names = append(names, p.String())
	}
	return names
}

// readSessionPolicy reads SessionPolicyPatch. What single values cannot tell, such as a rule for a class that no platform has,
// is noted for the policy as a whole.
func readSessionPolicy(r *strictjson.Reader) *push.SessionPolicy {
	if r.Null() {
		return nil
	}
	var rules push.SessionRules
	before := len(r.Errors())
	_, ok := r.Object(policyShape, func(i int) {
		switch i {
		case inPolicyClasses:
			rules.Classes = readClassMap(r)
		case inPolicyDefault:
			rules.Default = readClass(r)
		case inPolicyRules:
			r.Array(0, push.MaxSessionRules, func(int) { rules.Rules = append(rules.Rules, readSessionRule(r)) })
		}
	})
	if !ok || len(r.Errors()) > before {
		return nil
	}
	p, err := push.NewSessionPolicy(rules)
	if err != nil {
		r.Note(strictjson.NotAllowed, err.Error())
	}
	return p
}

func readClassMap(r *strictjson.Reader) map[push.Platform]string {
	classes := make(map[push.Platform]string)
	r.Object(classMapShape, func(i int) { classes[push.Platform(i)] = readClass(r) })
	return classes
}

func readClass(r *strictjson.Reader) string {
	s, ok := r.Text(strictjson.Rule{})
	if !ok {
		return ""
	}
	if err := push.CheckClass(s); err != nil {
		r.Note(strictjson.BadFormat, err.Error())
	}
	return s
}

func readSessionRule(r *strictjson.Reader) (rule push.SessionRule) {
	r.Object(ruleShape, func(i int) {
		switch i {
		case inRuleScope:
			word, _ := r.Word(scopeWords...)
			rule.Scope = push.SessionScope(max(word, 0))
		case inRuleMax:
			n, _ := r.Int(1, push.MaxSessionMax)
			rule.Max = int(n)
		case inRuleOf:
			rule.Of = readClass(r)
		case inRuleOnExcess:
			word, _ := r.Word(excessWords...)
			rule.OnExcess = push.OnExcess(max(word, 0))
		}
	})
	return rule
}

func showSessionPolicy(p *push.SessionPolicy) *adminapi.SessionPolicy {
	if p == nil {
		return nil
	}
	rules := p.Rules()
	out := &adminapi.SessionPolicy{
		Classes: make(map[string]string, len(rules.Classes)), DefaultClass: optString(rules.Default), Rules: []adminapi.SessionRule{},
	}
	for at, class := range rules.Classes {
		out.Classes[at.String()] = class
	}
	for _, r := range rules.Rules {
		out.Rules = append(out.Rules, adminapi.SessionRule{
			Scope: adminapi.SessionScope(r.Scope.String()), Of: optString(r.Of), Max: r.Max, OnExcess: adminapi.OnExcess(r.OnExcess.String()),
		})
	}
	return out
}
