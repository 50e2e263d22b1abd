package push

import (
	"slices"
	"strings"
	"testing"
)

func TestTag_RulesAreThoseOfNames(t *testing.T) {
	for tag, want := range map[Tag]bool{
		"a": true, "news.sport": true, "ä *": true, Tag(strings.Repeat("t", MaxTag)): true,
		"": false, Tag(strings.Repeat("t", MaxTag+1)): false, "a\n": false, "a\x7f": false, "\xff": false,
	} {
		if got := tag.Check() == nil; got != want {
			t.Errorf("tag %q: allowed is %v", tag, got)
		}
		if got := TagPattern(tag).Check() == nil; got != want {
			t.Errorf("pattern %q: allowed is %v", tag, got)
		}
	}
}

func TestTagPattern_StandsForAPrefixOrForOneTag(t *testing.T) {
	for _, c := range []struct {
		pattern TagPattern
		tag     Tag
		want    bool
	}{
		{"news.*", "news.sport", true},
		{"news.*", "news.", true},
		{"news.*", "news", false},
		{"news.*", "newsroom", false},
		{"news.*", "old news.sport", false},
		{"news.*", "News.sport", false},
		{"*", "anything", true},
		{"vip", "vip", true},
		{"vip", "vips", false},
		{"vip", "vi", false},
		{"a*b", "a*b", true},
		{"a*b", "axb", false},
		{"a**", "a*", true},
		{"a**", "ab", false},
	} {
		if got := c.pattern.Permits(c.tag); got != c.want {
			t.Errorf("%q permits %q: got %v", c.pattern, c.tag, got)
		}
	}
}

func TestUniteTags_IsSortedAndSharesNothing(t *testing.T) {
	a, b := []Tag{"c", "a"}, []Tag{"b", "a"}
	got := UniteTags(a, nil, b)
	if !slices.Equal(got, []Tag{"a", "b", "c"}) {
		t.Fatalf("got %q", got)
	}
	got[0] = "x"
	if a[0] != "c" || b[1] != "a" || UniteTags(nil, []Tag{}) != nil {
		t.Fatalf("arguments are %q and %q", a, b)
	}
	if one := UniteTags(a); &one[0] == &a[0] {
		t.Fatal("the union of one set is that set")
	}
}
