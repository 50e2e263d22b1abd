package push

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// expr reads all:, any: and not: of tags in one line, where a part in brackets is an expression: "all:a,(not:b) any:c,d".
func expr(t testing.TB, s string) *TagExpr {
	t.Helper()
	e, rest := readExpr(s)
	if rest != "" {
		t.Fatalf("%q: %q is left over", s, rest)
	}
	return e
}

func readExpr(s string) (*TagExpr, string) {
	e := &TagExpr{}
	for s != "" && s[0] != ')' {
		list := map[string]*[]TagTerm{"all": &e.All, "any": &e.Any, "not": &e.Not}[s[:3]]
		for s = s[4:]; ; s = s[1:] {
			var term TagTerm
			if s[0] == '(' {
				term.Expr, s = readExpr(s[1:])
				s = s[1:]
			} else {
				n := strings.IndexAny(s+" ", ", )")
				term.Tag, s = Tag(s[:n]), s[n:]
			}
			*list = append(*list, term)
			if s == "" || s[0] != ',' {
				break
			}
		}
		s = strings.TrimPrefix(s, " ")
	}
	return e, s
}

func TestTagExpr_MatchesAllOfAnyOfAndNoneOf(t *testing.T) {
	for _, c := range []struct {
		expr string
		yes  []string // sets of tags
		no   []string
	}{
		{"all:a", []string{"a", "a b"}, []string{"", "b", "aa", "A"}},
		{"all:a,b", []string{"a b", "a b c"}, []string{"", "a", "b"}},
		{"any:a,b", []string{"a", "b", "a b c"}, []string{"", "c"}},
		{"not:a", []string{"", "b"}, []string{"a", "a b"}},
		{"not:a,b", []string{"", "c"}, []string{"a", "b c"}},
		{"all:a any:b,c not:d", []string{"a b", "a c", "a b c e"}, []string{"a", "b", "a d", "a b d"}},
		{"any:(all:a,b),(all:c not:d)", []string{"a b", "c", "a b c d"}, []string{"a", "b", "c d"}},
		{"not:(all:a,b)", []string{"", "a", "b"}, []string{"a b"}},
		{"all:(any:a,b),(any:c,d)", []string{"a c", "b d"}, []string{"a b", "c d", ""}},
		{"all:news.*", []string{"news.*"}, []string{"news.sport", "news."}},
	} {
		e := expr(t, c.expr)
		for want, sets := range map[bool][]string{true: c.yes, false: c.no} {
			for _, set := range sets {
				var tags []Tag
				for _, s := range strings.Fields(set) {
					tags = append(tags, Tag(s))
				}
				slices.Sort(tags)
				if got := e.Matches(TagsIn(tags)); got != want {
					t.Errorf("%s with %q: got %v", c.expr, set, got)
				}
				if got := e.Canonical().Matches(TagsIn(tags)); got != want {
					t.Errorf("%s in canonical form with %q: got %v", c.expr, set, got)
				}
			}
		}
	}
}

func TestTagExpr_CheckKeepsToTheLimits(t *testing.T) {
	level := func(n int) *TagExpr {
		e := &TagExpr{All: []TagTerm{{Tag: "a"}}}
		for range n - 1 {
			e = &TagExpr{Not: []TagTerm{{Expr: e}}}
		}
		return e
	}
	many := func(n int) (ts []TagTerm) {
		for i := range n {
			ts = append(ts, TagTerm{Tag: Tag("t" + strconv.Itoa(i))})
		}
		return ts
	}
	for _, c := range []struct {
		name string
		e    *TagExpr
		ok   bool
	}{
		{"one tag", expr(t, "all:a"), true},
		{"nothing", &TagExpr{}, false},
		{"nothing below", &TagExpr{All: []TagTerm{{Expr: &TagExpr{}}}}, false},
		{"a tag without text", &TagExpr{All: []TagTerm{{}}}, false},
		{"a tag and an expression", &TagExpr{All: []TagTerm{{"a", expr(t, "all:b")}}}, false},
		{"the longest tag", &TagExpr{All: []TagTerm{{Tag: Tag(strings.Repeat("x", MaxTag))}}}, true},
		{"a longer tag", &TagExpr{All: []TagTerm{{Tag: Tag(strings.Repeat("x", MaxTag+1))}}}, false},
		{"a control character", &TagExpr{Not: []TagTerm{{Tag: "a\n"}}}, false},
		{"the most terms", &TagExpr{Any: many(MaxTagTerms)}, true},
		{"a term more", &TagExpr{Any: many(MaxTagTerms + 1)}, false},
		{"the most terms in several places", &TagExpr{Any: many(8), Not: []TagTerm{{Expr: &TagExpr{All: many(8)}}}}, true},
		{"a term more in several places", &TagExpr{Any: many(8), Not: []TagTerm{{Expr: &TagExpr{All: many(9)}}}}, false},
		{"the most levels", level(MaxTagLevels), true},
		{"a level more", level(MaxTagLevels + 1), false},
	} {
		if err := c.e.Check(); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", c.name, err, c.ok)
		}
	}
}

func TestTagExpr_CanonicalFormIsOneForWhatIsWrittenInAnotherOrder(t *testing.T) {
	for _, same := range [][]string{
		{"all:a,b", "all:b,a", "all:a,b,a", "all:a any:b", "any:a all:b"},
		{"all:a", "any:a", "any:a,a"},
		{"any:(all:a not:b),c not:d,e", "not:e,d any:c,(not:b all:a)", "any:c,(any:a not:b),c not:d,e"},
		{"all:a,(any:b,c),(any:b,d)", "all:(any:d,b),(any:c,b),a"},
	} {
		want := expr(t, same[0]).Canonical()
		for _, s := range same {
			e := expr(t, s)
			got := e.Canonical()
			if !got.IsCanonical() || !got.Equal(want) || !got.Canonical().Equal(got) {
				t.Errorf("%s and %s differ", s, same[0])
			}
			if e.IsCanonical() != (s == "all:a,b" || s == "all:a" || s == "all:a,(any:b,c),(any:b,d)" || s == "any:c,(all:a not:b) not:d,e") {
				t.Errorf("%s: it is said to be canonical %v", s, e.IsCanonical())
			}
		}
	}
	for _, c := range [][2]string{{"all:a", "not:a"}, {"any:a,b", "all:a,b"}, {"all:a", "all:a,b"}, {"all:a", "all:(not:a)"}} {
		if expr(t, c[0]).Canonical().Equal(expr(t, c[1]).Canonical()) {
			t.Errorf("%s and %s are the same", c[0], c[1])
		}
	}
	if e := (*TagExpr)(nil); e.Canonical() != nil || !e.Equal(nil) || e.Equal(expr(t, "all:a")) || expr(t, "all:a").Equal(nil) {
		t.Error("no expression is not one")
	}
}

// randomExpr returns an expression within the limits.
func randomExpr(r *rand.Rand, levels int) *TagExpr {
	e := &TagExpr{}
	for e.Check() != nil {
		*e = TagExpr{}
		for _, list := range [...]*[]TagTerm{&e.All, &e.Any, &e.Not} {
			for range r.IntN(3) {
				if levels > 1 && r.IntN(4) == 0 {
					*list = append(*list, TagTerm{Expr: randomExpr(r, levels-1)})
					continue
				}
				*list = append(*list, TagTerm{Tag: Tag(rune('a' + r.IntN(4)))})
			}
		}
	}
	return e
}

func TestTagExpr_CanonicalFormMeansTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		e := randomExpr(r, 3)
		c := e.Canonical()
		if !c.IsCanonical() {
			t.Fatalf("%+v is not canonical", c)
		}
		for set := range 16 {
			has := func(tag Tag) bool { return set>>(tag[0]-'a')&1 == 1 }
			if e.Matches(has) != c.Matches(has) {
				t.Fatalf("%+v and %+v differ for %04b", e, c, set)
			}
		}
	}
}

func TestTagExpr_MatchingAllocatesNothing(t *testing.T) {
	e := expr(t, "all:a any:(all:b not:c),d not:e").Canonical()
	tags := []Tag{"a", "b", "x"}
	has := TagsIn(tags)
	if n := testing.AllocsPerRun(100, func() { e.Matches(has) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTagExpr_MayMatchWhateverADeviceAmongThemMatches(t *testing.T) {
	for _, c := range []struct {
		expr, held string // the tags that devices have between them, one letter each
		want       bool
	}{
		{"all:a", "", false}, {"all:a", "a", true}, {"all:a,b", "a", false}, {"all:a,b", "ab", true},
		{"any:a,b", "", false}, {"any:a,b", "b", true}, {"not:a", "", true}, {"not:a", "a", true},
		{"all:a not:b", "ab", true}, {"all:a not:b", "b", false}, {"all:a any:b,c", "a", false}, {"all:a any:b,c", "ac", true},
	} {
		has := func(t Tag) bool { return strings.Contains(c.held, string(t)) }
		if got := expr(t, c.expr).MayMatch(has); got != c.want {
			t.Errorf("%s among devices with %q: got %v, want %v", c.expr, c.held, got, c.want)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	never := 0
	for range 2000 {
		e := randomExpr(r, 3)
		asked := e.AppendAsked(nil)
		devices := make([]Tag, 3) // a set of letters each
		held := map[Tag]bool{}
		for i := range devices {
			for _, l := range "abcd" {
				if r.IntN(3) == 0 {
					devices[i] += Tag(l)
					held[Tag(l)] = true
				}
			}
		}
		may := e.MayMatch(func(t Tag) bool {
			if !slices.Contains(asked, t) {
				panic("asked for " + t + ", which it does not name")
			}
			return held[t]
		})
		if !may {
			never++
		}
		for _, d := range devices {
			if e.Matches(func(t Tag) bool { return strings.Contains(string(d), string(t)) }) && !may {
				t.Fatalf("%+v matches a device with %q and may not match", e, d)
			}
		}
	}
	if never == 0 {
		t.Error("every expression may match everybody")
	}
}

// TestTagExpr_WhatIsSettledHoldsWhateverElseADeviceHas tries every expression of some with every set of tags that a device can have beside
// those that are known.
func TestTagExpr_WhatIsSettledHoldsWhateverElseADeviceHas(t *testing.T) {
	a, b, c := TagTerm{Tag: "a"}, TagTerm{Tag: "b"}, TagTerm{Tag: "c"}
	of := func(all, anyOf, not []TagTerm) *TagExpr { return &TagExpr{All: all, Any: anyOf, Not: not} }
	lists := [][]TagTerm{nil, {a}, {b}, {a, b}, {{Expr: of(nil, []TagTerm{a, c}, nil)}}, {c, {Expr: of([]TagTerm{a}, nil, []TagTerm{b})}}}
	letters := []Tag{"a", "b", "c"}
	set := func(n int) func(Tag) bool {
		return func(tag Tag) bool { return n&(1<<(tag[0]-'a')) != 0 }
	}
	settled := map[Settlement]int{}
	for _, all := range lists {
		for _, anyOf := range lists {
			for _, not := range lists {
				e := of(all, anyOf, not)
				for known := range 1 << len(letters) {
					s := e.Settled(set(known))
					settled[s]++
					for more := range 1 << len(letters) {
						if got := e.Matches(set(known | more)); s == Meant && !got || s == NotMeant && got {
							t.Fatalf("%+v with %b is settled as %d, and with %b meant is %v", e, known, s, known|more, got)
						}
					}
				}
			}
		}
	}
	if len(settled) != 3 {
		t.Errorf("got only %v", settled)
	}
}
