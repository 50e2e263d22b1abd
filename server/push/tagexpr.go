package push

import (
	"cmp"
	"fmt"
	"slices"
)

// Limits of an expression over tags. A level that says something, and has one below it, takes two terms: so more than
// eight levels are never needed by sixteen terms.
const (
	MaxTagTerms  = 16 // tags in an expression, each as often as it stands there
	MaxTagLevels = 8
)

// TagExpr says which devices are meant by their tags: those that have all of All, at least one of Any (if Any has terms)
// and none of Not. It has at least one term. Tags are compared as they are, byte by byte; there are no patterns here.
type TagExpr struct {
	All []TagTerm
	Any []TagTerm
	Not []TagTerm
}

// TagTerm is a tag or, in its place, an expression; never both. A device "has" an expression that it matches.
type TagTerm struct {
	Tag  Tag
	Expr *TagExpr
}

// Check reports what is wrong with an expression, nil if nothing is.
func (e *TagExpr) Check() error {
	terms, err := e.check(MaxTagLevels)
	if err == nil && terms > MaxTagTerms {
		err = fmt.Errorf("an expression over tags has at most %d terms", MaxTagTerms)
	}
	return err
}

func (e *TagExpr) check(levels int) (terms int, err error) {
	if levels == 0 {
		return 0, fmt.Errorf("an expression over tags has at most %d levels", MaxTagLevels)
	}
	if len(e.All)+len(e.Any)+len(e.Not) == 0 {
		return 0, fmt.Errorf("an expression over tags has at least one term")
	}
	for _, list := range e.lists() {
		for _, t := range list {
			n := 1
			switch {
			case t.Expr != nil && t.Tag != "":
				err = fmt.Errorf("a term is a tag or an expression, not both")
			case t.Expr != nil:
				n, err = t.Expr.check(levels - 1)
			default:
				err = t.Tag.Check()
			}
			if err != nil {
				return 0, err
			}
			terms += n
		}
	}
	return terms, nil
}

func (e *TagExpr) lists() [3][]TagTerm { return [...][]TagTerm{e.All, e.Any, e.Not} }

// Matches reports whether a device is meant that has the tags of which has says so.
func (e *TagExpr) Matches(has func(Tag) bool) bool {
	for _, t := range e.All {
		if !t.matches(has) {
			return false
		}
	}
	for _, t := range e.Not {
		if t.matches(has) {
			return false
		}
	}
	if len(e.Any) == 0 {
		return true
	}
	for _, t := range e.Any {
		if t.matches(has) {
			return true
		}
	}
	return false
}

// MayMatch reports whether there may be a device that is meant, among devices that have, between them, the tags of which has says so. They
// may each lack any tag, so what stands in Not keeps nobody out.
func (e *TagExpr) MayMatch(has func(Tag) bool) bool {
	for _, t := range e.All {
		if !t.mayMatch(has) {
			return false
		}
	}
	return len(e.Any) == 0 || slices.ContainsFunc(e.Any, func(t TagTerm) bool { return t.mayMatch(has) })
}

func (t TagTerm) mayMatch(has func(Tag) bool) bool {
	if t.Expr != nil {
		return t.Expr.MayMatch(has)
	}
	return has(t.Tag)
}

// AppendAsked appends the tags for which MayMatch may ask.
func (e *TagExpr) AppendAsked(dst []Tag) []Tag {
	for _, list := range [...][]TagTerm{e.All, e.Any} {
		for _, t := range list {
			if t.Expr != nil {
				dst = t.Expr.AppendAsked(dst)
			} else {
				dst = append(dst, t.Tag)
			}
		}
	}
	return dst
}

// Settlement is what some of a device's tags say of whether it is meant.
type Settlement int8

// The settlements.
const (
	Unsettled Settlement = iota // the others decide
	Meant                       // whatever the others are
	NotMeant
)

// Settled returns what it says of a device that it has the tags of which has says so, if it may have any others.
func (e *TagExpr) Settled(has func(Tag) bool) Settlement {
	out := Meant
	and := func(s Settlement) {
		if s == NotMeant || out == Meant {
			out = s
		}
	}
	for _, t := range e.All {
		if out != NotMeant {
			and(t.settled(has))
		}
	}
	for _, t := range e.Not {
		if out != NotMeant {
			and(t.settled(has).not())
		}
	}
	if len(e.Any) == 0 || out == NotMeant {
		return out
	}
	one := NotMeant
	for _, t := range e.Any {
		switch t.settled(has) {
		case Meant:
			return out
		case Unsettled:
			one = Unsettled
		}
	}
	and(one)
	return out
}

func (s Settlement) not() Settlement {
	switch s {
	case Meant:
		return NotMeant
	case NotMeant:
		return Meant
	}
	return Unsettled
}

func (t TagTerm) settled(has func(Tag) bool) Settlement {
	switch {
	case t.Expr != nil:
		return t.Expr.Settled(has)
	case has(t.Tag):
		return Meant
	}
	return Unsettled
}

func (t TagTerm) matches(has func(Tag) bool) bool {
	if t.Expr != nil {
		return t.Expr.Matches(has)
	}
	return has(t.Tag)
}

// Canonical returns the expression as it is stored and compared, in memory of its own: every list sorted, each term in it
// once, and a list Any of one term as part of All. That of nil is nil.
func (e *TagExpr) Canonical() *TagExpr {
	if e == nil {
		return nil
	}
	c := &TagExpr{All: canonicalTerms(e.All), Any: canonicalTerms(e.Any), Not: canonicalTerms(e.Not)}
	if len(c.Any) == 1 {
		c.All, c.Any = canonicalTerms(slices.Concat(c.All, c.Any)), nil
	}
	return c
}

func canonicalTerms(list []TagTerm) []TagTerm {
	if len(list) == 0 {
		return nil
	}
	out := make([]TagTerm, len(list))
	for i, t := range list {
		out[i] = TagTerm{t.Tag, t.Expr.Canonical()}
	}
	slices.SortFunc(out, compareTerms)
	return slices.CompactFunc(out, func(a, b TagTerm) bool { return compareTerms(a, b) == 0 })
}

// IsCanonical reports whether the expression is as Canonical writes it.
func (e *TagExpr) IsCanonical() bool {
	if len(e.Any) == 1 {
		return false
	}
	for _, list := range e.lists() {
		for i, t := range list {
			if t.Expr != nil && !t.Expr.IsCanonical() || i > 0 && compareTerms(list[i-1], t) >= 0 {
				return false
			}
		}
	}
	return true
}

// Equal reports whether two expressions in canonical form say the same in the same words; nil equals nil alone.
func (e *TagExpr) Equal(o *TagExpr) bool {
	if e == nil || o == nil {
		return e == o
	}
	return compareExprs(e, o) == 0
}

// compareTerms orders the terms of a list: tags come first.
func compareTerms(a, b TagTerm) int {
	switch {
	case a.Expr == nil && b.Expr == nil:
		return cmp.Compare(a.Tag, b.Tag)
	case a.Expr == nil:
		return -1
	case b.Expr == nil:
		return 1
	}
	return compareExprs(a.Expr, b.Expr)
}

func compareExprs(a, b *TagExpr) int {
	return cmp.Or(
		slices.CompareFunc(a.All, b.All, compareTerms),
		slices.CompareFunc(a.Any, b.Any, compareTerms),
		slices.CompareFunc(a.Not, b.Not, compareTerms),
	)
}
