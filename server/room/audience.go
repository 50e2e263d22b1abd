package room

import (
	"slices"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/wire"
)

// Whether a session gets an entry is judged when its place in the slot passes the entry, by the tags that it has then: an entry
// that waits in between, out of turn or in a cached tail, waits with its filter. So a device that is away belongs to an audience
// by the tags that it comes back with, and what a session's tags become later changes nothing about what it has passed.

// admitsLocked reports whether a filter lets the session through.
func (s *session) admitsLocked(f *push.Filter) bool {
	return f.IsZero() || f.AdmitsBesideTags(s.facts()) && s.matchesLocked(f.Tags)
}

func (s *session) matchesLocked(e *push.TagExpr) bool {
	if e == nil {
		return true
	}
	t := s.tagsLocked()
	if t == nil {
		return e.Matches(func(push.Tag) bool { return false })
	}
	return e.Matches(t.has)
}

// has reports whether the session has a tag, from wherever it has it.
func (t *sessionTags) has(tag push.Tag) bool {
	for _, set := range [...][]push.Tag{t.token, t.kept.Given, t.kept.Joined} {
		if _, ok := slices.BinarySearch(set, tag); ok {
			return true
		}
	}
	return false
}

// admitsEntryLocked reports whether an entry that was read is for the session.
func (s *session) admitsEntryLocked(e *tailEntry) bool {
	if planted.Is(planted.TagsNotRead) {
		return e.Filter.AdmitsBesideTags(s.facts())
	}
	return s.admitsLocked(e.Filter) || e.Kind == saver.EntryRecall && s.admitsRecallLocked(e.Filter)
}

// admitsOutLocked reports whether an entry of which the room was told is for the session.
func (s *session) admitsOutLocked(f *push.Filter, o *wire.Out) bool {
	if s.admitsLocked(f) {
		return true
	}
	_, recall := o.Frame.(*wire.Recall)
	return recall && s.admitsRecallLocked(f)
}

// admitsRecallLocked reports whether the session may have had the message that is taken back. Its tags may have been others
// when it was sent that; and whoever never had it passes over the recall of an id that it does not know.
func (s *session) admitsRecallLocked(f *push.Filter) bool { return f.AdmitsBesideTags(s.facts()) }
