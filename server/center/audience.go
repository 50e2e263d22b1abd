package center

import (
	"slices"
	"strconv"

	"carillon/server/center/strictjson"
	"carillon/server/push"
)

const (
	inAll = iota
	inAny
	inNot
)

var (
	tagExprShape = strictjson.NewShape(0, "all", "any", "not")
	classRule    = strictjson.Rule{Least: 1, Most: push.MaxClassName}
)

// maxClasses is how many classes a request may name.
const maxClasses = 16

// tags reads an expression over tags and returns it in canonical form.
func (p *parser) tags() *push.TagExpr {
	terms := 0
	e := p.tagExpr(push.MaxTagLevels, &terms)
	if terms > push.MaxTagTerms {
		p.r.Note(strictjson.TooMany, "at most "+strconv.Itoa(push.MaxTagTerms)+" tags in all")
		return nil
	}
	return e.Canonical()
}

// tagExpr reads an expression of at most so many levels. It stops where they are used up, so that nobody makes us call ourselves
// more often than that.
func (p *parser) tagExpr(levels int, terms *int) *push.TagExpr {
	if levels == 0 {
		p.r.Note(strictjson.TooDeep, "at most "+strconv.Itoa(push.MaxTagLevels)+" levels")
		p.r.Skip()
		return nil
	}
	e := &push.TagExpr{}
	lists := [...]*[]push.TagTerm{inAll: &e.All, inAny: &e.Any, inNot: &e.Not}
	seen, ok := p.r.Object(tagExprShape, func(i int) {
		p.r.Array(1, push.MaxTagTerms, func(int) {
			var t push.TagTerm
			if p.r.Type() == strictjson.Object {
				t.Expr = p.tagExpr(levels-1, terms)
			} else {
				s, _ := p.r.Text(tagRule)
				t.Tag = push.Tag(s)
				*terms++
			}
			*lists[i] = append(*lists[i], t)
		})
	})
	if ok && seen == 0 {
		p.r.Note(strictjson.TooFew, "at least one of all, any and not")
	}
	return e
}

func (p *parser) platforms() (set push.PlatformSet) {
	var named []string
	p.r.Array(1, len(platformWords), func(int) {
		i, ok := p.r.Word(platformWords...)
		if !ok {
			named = append(named, "")
			return
		}
		name, _ := push.ParsePlatform(platformWords[i])
		set = set.Add(name)
		named = append(named, platformWords[i])
	})
	noteRepeats(p.r, named, func(s string) string { return s })
	return set
}

func (p *parser) classes() []string {
	var named []string
	p.r.Array(1, maxClasses, func(int) {
		s, ok := p.r.Text(classRule)
		if ok && push.CheckClass(s) != nil {
			p.r.Note(strictjson.BadFormat, "a-z, 0-9, '-' and '_'")
		}
		named = append(named, s)
	})
	noteRepeats(p.r, named, func(s string) string { return s })
	slices.Sort(named)
	return named
}

// inCommon reports whether the message goes to the common slots: who belongs to its audience is settled where it is read.
func (q *request) inCommon() bool { return q.everyone || q.tags != nil }

// filter returns what the devices of the audience have in common, nil if that is nothing.
func (q *request) filter() *push.Filter {
	if q.platforms == 0 && q.classes == nil && q.tags == nil {
		return nil
	}
	return &push.Filter{Platforms: q.platforms, Classes: q.classes, Tags: q.tags}
}

// narrow has the platforms and classes of the request hold for each of its targets.
func (q *request) narrow() {
	shared := q.filter()
	if shared == nil {
		return
	}
	for i := range q.targets {
		t := &q.targets[i]
		if t.Filter == nil {
			t.Filter = shared
			continue
		}
		t.Filter.Platforms, t.Filter.Classes = q.platforms, q.classes
	}
}

// appendAudience appends what a filter asks beside devices, as members that follow others.
func appendAudience(dst []byte, f *push.Filter) []byte {
	if f == nil {
		return dst
	}
	if f.Tags != nil {
		dst = appendTagExpr(append(dst, `,"tags":`...), f.Tags)
	}
	if f.Platforms != 0 {
		dst = append(dst, `,"platforms":[`...)
		for i, p := range f.Platforms.Platforms() {
			dst = appendItem(dst, i, p.String())
		}
		dst = append(dst, ']')
	}
	if len(f.Classes) > 0 {
		dst = append(dst, `,"classes":[`...)
		for i, c := range f.Classes {
			dst = appendItem(dst, i, c)
		}
		dst = append(dst, ']')
	}
	return dst
}

func appendItem(dst []byte, i int, s string) []byte {
	if i > 0 {
		dst = append(dst, ',')
	}
	return appendString(dst, s)
}

// appendTagExpr appends the schema TagExpression.
func appendTagExpr(dst []byte, e *push.TagExpr) []byte {
	dst = append(dst, '{')
	first := true
	for i, list := range [...][]push.TagTerm{inAll: e.All, inAny: e.Any, inNot: e.Not} {
		if len(list) == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendString(dst, tagExprShape.Name(i)), ':', '[')
		for j, t := range list {
			if t.Expr == nil {
				dst = appendItem(dst, j, string(t.Tag))
				continue
			}
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = appendTagExpr(dst, t.Expr)
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}
