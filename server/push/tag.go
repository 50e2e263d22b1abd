package push

import (
	"slices"
	"strings"
)

// Limits of tags.
const (
	MaxTag         = 128 // bytes of a tag or a pattern
	MaxTags        = 64  // tags in a token, and tags that are kept for a device, its user's among them
	MaxTagPatterns = 16  // patterns in a token
)

// Tag marks devices that messages may be meant for together: 1 to 128 bytes of UTF-8 without control characters. It is
// opaque. A device has the tags of its token, those that the product's server gave to it or to its user, and those that its
// client joined.
type Tag string

// Check reports what is wrong with a tag, nil if nothing is.
func (t Tag) Check() error { return checkName("a tag", string(t), MaxTag) }

// TagPattern says which tags a client may join and leave by itself, under the same rules as [Tag]. One that ends with '*'
// stands for all tags that begin with what is before it, so "*" for every tag; any other stands for the tag of the same text.
type TagPattern string

// Check reports what is wrong with a pattern, nil if nothing is.
func (p TagPattern) Check() error { return checkName("a pattern of tags", string(p), MaxTag) }

// Permits reports whether the pattern stands for a tag.
func (p TagPattern) Permits(t Tag) bool {
	if prefix, ok := strings.CutSuffix(string(p), "*"); ok {
		return strings.HasPrefix(string(t), prefix)
	}
	return string(p) == string(t)
}

// UniteTags returns the tags of several sets, sorted, each once, in a slice of its own; nil if there are none.
func UniteTags(sets ...[]Tag) []Tag {
	all := slices.Concat(sets...)
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TagsIn returns what tells whether a tag is in a sorted set.
func TagsIn(tags []Tag) func(Tag) bool {
	return func(t Tag) bool {
		_, ok := slices.BinarySearch(tags, t)
		return ok
	}
}
