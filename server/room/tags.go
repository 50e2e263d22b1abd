package room

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"carillon/server/auth"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

// tagBook holds the tags of sessions that have some, or whose token permits some. Most have none, and they are counted in
// bytes: so tags lie beside the sessions, and a session without tags has no entry.
type tagBook struct {
	looks atomic.Uint64 // looks at the store begun so far; each has a number of its own

	mu sync.Mutex
	of map[*session]*sessionTags // guarded by mu; what is in it, by the session's mu

	again []*session // guarded by mu: a look for them failed, and is made again with the next sweep; each once
}

// lookAgain notes sessions whose tags are to be looked at again.
func (b *tagBook) lookAgain(ss []*session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	noted := make(map[*session]struct{}, len(b.again))
	for _, s := range b.again {
		noted[s] = struct{}{}
	}
	for _, s := range ss {
		if _, is := noted[s]; !is {
			b.again = append(b.again, s)
			noted[s] = struct{}{}
		}
	}
}

// takeAgain returns the sessions that were noted, those of one product together.
func (b *tagBook) takeAgain() (groups [][]*session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := make(map[push.ProductID]int)
	for _, s := range b.again {
		p := s.shard.ref.Product
		i, is := at[p]
		if !is {
			i = len(groups)
			at[p], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	b.again = nil
	return groups
}

// sessionTags are the tags of one session. The lists are replaced as a whole and never changed.
type sessionTags struct {
	token    []push.Tag        // of its token
	patterns []push.TagPattern // of its token
	kept     saver.KeptTags    // as the store was last seen
	look     uint64            // the newest look at the store that is under way; 0: none is
	fresh    bool              // of a session that is being opened: kept is newer than what Open found
}

func (t *sessionTags) empty() bool {
	return len(t.token)+len(t.patterns)+len(t.kept.Given)+len(t.kept.Joined) == 0 && t.look == 0 && !t.fresh
}

func (b *tagBook) lookup(s *session) *sessionTags {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.of[s]
}

// tagsLocked returns the session's entry, nil if it has none. It looks into the book only if there is one.
func (s *session) tagsLocked() *sessionTags {
	if !s.tagged {
		return nil
	}
	return s.room.tags.lookup(s)
}

// needTagsLocked returns the session's entry and makes it if need be. Whoever calls it settles it afterwards.
func (s *session) needTagsLocked() *sessionTags {
	if t := s.tagsLocked(); t != nil {
		return t
	}
	b, t := &s.room.tags, new(sessionTags)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of == nil {
		b.of = make(map[*session]*sessionTags)
	}
	b.of[s], s.tagged = t, true
	return t
}

// settleTagsLocked gives up an entry that says nothing.
func (s *session) settleTagsLocked(t *sessionTags) {
	if t.empty() {
		s.dropTagsLocked()
	}
}

func (s *session) dropTagsLocked() {
	t := s.tagsLocked()
	if t == nil {
		return
	}
	s.room.held.count(s.shard.ref.Product, -1, t.token, t.kept.Given, t.kept.Joined)
	b := &s.room.tags
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.of, s)
	s.tagged = false
}

// noteTokenTagsLocked notes what a token says of tags, in memory of our own: what it was parsed into is one piece.
func (s *session) noteTokenTagsLocked(id auth.Identity) {
	if len(id.Tags)+len(id.TagPatterns) == 0 && !s.tagged {
		return
	}
	t := s.needTagsLocked()
	old := t.token
	t.token, t.patterns = tokenTags(id), nil
	s.room.held.count(s.shard.ref.Product, 1, t.token)
	s.room.held.count(s.shard.ref.Product, -1, old)
	for _, p := range id.TagPatterns {
		t.patterns = append(t.patterns, push.TagPattern(strings.Clone(p)))
	}
	s.settleTagsLocked(t)
}

// tokenTags returns the tags of a token, sorted, in memory of their own.
func tokenTags(id auth.Identity) (tags []push.Tag) {
	for _, tag := range id.Tags {
		tags = append(tags, push.Tag(strings.Clone(tag)))
	}
	slices.Sort(tags)
	return tags
}

// keepTokenTags has the store keep the tags of the token that a session is opened with, where it has others, so that who looks for the
// devices that have a tag finds this one also when it is away. It is done before the welcome: whoever was welcomed is found.
func (s *session) keepTokenTags(ctx context.Context, kept []push.Tag) error {
	return s.changeTokenTags(ctx, kept, s.tokenTags())
}

// keepTagsOf does the same for the new token of an open session, which has the tags of its old one.
func (s *session) keepTagsOf(ctx context.Context, id auth.Identity) error {
	return s.changeTokenTags(ctx, s.tokenTags(), tokenTags(id))
}

// tokenTags returns the tags of the session's token.
func (s *session) tokenTags() []push.Tag {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tagsLocked(); t != nil {
		return t.token
	}
	return nil
}

// keepTagsLocked notes which tags are kept for the session.
func (s *session) keepTagsLocked(t *sessionTags, kept saver.KeptTags) {
	old := t.kept
	kept.Token = nil // the session has its token
	t.kept = kept
	s.room.held.count(s.shard.ref.Product, 1, kept.Given, kept.Joined)
	s.room.held.count(s.shard.ref.Product, -1, old.Given, old.Joined)
}

func (s *session) changeTokenTags(ctx context.Context, from, to []push.Tag) error {
	if slices.Equal(from, to) {
		return nil
	}
	err := s.room.cfg.Saver.ChangeTags(ctx, []saver.TagChange{{
		UserRef: s.userRef(), Device: s.device(), Token: true, Replace: true, Add: to,
	}})[0].Err
	if push.KindOf(err) == push.KindNotFound {
		return nil // the device was deleted a moment ago, which ends its session by itself
	}
	return err
}

// openTagsLocked notes the tags that Open found, unless somebody has looked again since the session is in the book. From here
// on entries are judged by them.
func (s *session) openTagsLocked(kept saver.KeptTags) {
	t := s.tagsLocked()
	if t == nil && len(kept.Given)+len(kept.Joined) == 0 {
		return
	}
	t = s.needTagsLocked()
	if !t.fresh {
		s.keepTagsLocked(t, kept) // also while somebody looks: until that is over these are the newest
	}
	t.fresh = false
	s.settleTagsLocked(t)
}

// effectiveTagsLocked returns the union of a session's tags, sorted, nil if it has none.
func (s *session) effectiveTagsLocked() []push.Tag {
	t := s.tagsLocked()
	if t == nil {
		return nil
	}
	return push.UniteTags(t.token, t.kept.Given, t.kept.Joined)
}

// Retag has the sessions of these users here, those that are being opened too, look at the tags that are kept for them. When
// it returns nil, they have what was stored before the call, or something newer. It may be repeated.
func (r *Room) Retag(ctx context.Context, p push.ProductID, users []push.UserID) error {
	policy, err := r.cfg.Policy(ctx, p)
	if push.KindOf(err) == push.KindNotFound {
		return nil // no product, no session
	}
	if err != nil {
		return err
	}
	if planted.Is(planted.TagsUnheard) {
		return nil
	}
	var ss []*session
	for _, u := range users {
		ss = r.sessionsAt(ss, p, policy.Shards, u)
	}
	return r.look(ctx, ss)
}

// look reads the tags that are kept for sessions of one product. Of several looks for one session that overlap, only the one that began last
// counts: it reads what all before it could have read. One that fails is made again with the next sweep: what changed is stored, and whoever
// asked for it need not ask again.
func (r *Room) look(ctx context.Context, ss []*session) error {
	if len(ss) == 0 {
		return nil
	}
	looks := make([]uint64, len(ss))
	refs := make([]saver.UserRef, len(ss))
	for i, s := range ss {
		looks[i], refs[i] = s.beginLook(), s.userRef()
	}
	release, kept, err := r.lookAndHold(ctx, ss, refs)
	for i, s := range ss {
		if err != nil {
			s.failLook(looks[i])
			continue
		}
		s.endLook(looks[i], kept[i])
	}
	release()
	if err != nil {
		r.tags.lookAgain(ss)
	}
	return err
}

// lookAndHold returns what is kept for sessions, and has the register know it until release is called.
func (r *Room) lookAndHold(ctx context.Context, ss []*session, refs []saver.UserRef) (release func(), kept []saver.KeptTags, err error) {
	none := func() {}
	users, err := r.cfg.Saver.Tags(ctx, refs)
	if err != nil {
		return none, nil, err
	}
	kept = make([]saver.KeptTags, len(ss))
	var lists [][]push.Tag
	for i, s := range ss {
		kept[i] = users[i].Kept(s.device())
		lists = append(lists, kept[i].Given, kept[i].Joined)
	}
	release, err = r.held.hold(ctx, refs[0].Product, lists...)
	if err != nil {
		return none, nil, err
	}
	return release, kept, nil
}

// beginLook returns the number of a look that begins now; 0, which ends nothing, if the session is on its way out.
func (s *session) beginLook() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state >= ending {
		return 0
	}
	t := s.needTagsLocked()
	t.look = s.room.tags.looks.Add(1)
	return t.look
}

func (s *session) endLook(look uint64, kept saver.KeptTags) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tagsLocked()
	if t == nil || look == 0 || t.look != look {
		return
	}
	s.keepTagsLocked(t, kept)
	t.look, t.fresh = 0, s.state == opening_
	s.settleTagsLocked(t)
}

func (s *session) failLook(look uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tagsLocked(); t != nil && look != 0 && t.look == look {
		t.look = 0
		s.settleTagsLocked(t)
	}
}

// changeTags does what a client's tags frame asks for and answers it. One is worked on at a time for each session.
func (r *Room) changeTags(ctx context.Context, s *session, f *wire.Tags) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	answer := r.answerTags(ctx, s, f)
	now := r.now()
	s.mu.Lock()
	s.tagging = false
	if s.state != open {
		s.mu.Unlock()
		return
	}
	s.queue.push(wire.Out{Frame: answer})
	s.wakeAndUnlock(now, transport.Direct)
}

func (r *Room) answerTags(ctx context.Context, s *session, f *wire.Tags) wire.Frame {
	joined, permitted := s.judgeTags(f)
	switch {
	case !permitted:
		return &wire.Error{Code: "tag_not_permitted", Detail: "the token does not permit to join or leave one of these tags"}
	case len(f.Join)+len(f.Leave) == 0:
		return &wire.Tags{Tags: joined}
	}
	changed := r.cfg.Saver.ChangeTags(ctx, []saver.TagChange{{
		UserRef: s.userRef(), Device: s.device(), Joined: true, Remove: f.Leave, Add: f.Join,
	}})[0]
	err := changed.Err
	if err == nil {
		err = r.look(ctx, []*session{s})
	}
	switch {
	case err == nil:
		return &wire.Tags{Tags: changed.Tags}
	case push.KindOf(err) == push.KindConflict:
		return &wire.Error{Code: "too_many_tags", Detail: asError(err).Detail}
	}
	return tagsLater
}

var tagsLater = &wire.Error{Code: "try_again", Detail: "the tags could not be changed now"}

// judgeTags returns what the client has joined, and whether its token permits all that it asks for.
func (s *session) judgeTags(f *wire.Tags) (joined []push.Tag, permitted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var patterns []push.TagPattern
	if t := s.tagsLocked(); t != nil {
		patterns, joined = t.patterns, t.kept.Joined
	}
	for _, tags := range [][]push.Tag{f.Join, f.Leave} {
		for _, tag := range tags {
			if !slices.ContainsFunc(patterns, func(p push.TagPattern) bool { return p.Permits(tag) }) {
				return joined, false
			}
		}
	}
	return joined, true
}
