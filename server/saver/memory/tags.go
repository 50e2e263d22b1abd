package memory

import (
	"context"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
)

// Tags returns copies.
func (s *Store) Tags(_ context.Context, us []saver.UserRef) ([]saver.UserTags, error) {
	if err := s.enter("tags"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	defer s.leave()
	out := make([]saver.UserTags, len(us))
	for i := range us {
		if sh := s.lookupShard(us[i].Shard()); sh != nil {
			out[i] = sh.tagsOf(us[i].User)
		}
	}
	return out, nil
}

func (sh *shard) tagsOf(id push.UserID) saver.UserTags {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if u := sh.users[id]; u != nil {
		return u.tags.Clone()
	}
	return saver.UserTags{}
}

// ChangeTags makes a user of one who gets tags and has nothing else yet.
func (s *Store) ChangeTags(_ context.Context, cs []saver.TagChange) []saver.TagsChanged {
	out := make([]saver.TagsChanged, len(cs))
	if err := s.enter("change tags"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	defer s.leave()
	for i := range cs {
		out[i] = s.changeTags(&cs[i])
	}
	return out
}

func (s *Store) changeTags(c *saver.TagChange) (r saver.TagsChanged) {
	sh := s.shard(c.Shard())
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.users[c.User]
	if u == nil {
		u = &user{}
	}
	_, known := u.find(c.Device)
	if u.tags, r = u.tags.Apply(c, known); u.tags != nil {
		sh.users[c.User] = u
	}
	return r
}

// Tagged looks at every user of the product: this store keeps no index.
func (s *Store) Tagged(_ context.Context, p push.ProductID, shards int, tag push.Tag, most int) ([]saver.TaggedUsers, error) {
	if err := s.enter("tagged"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	defer s.leave()
	out := make([]saver.TaggedUsers, shards)
	for i := range out {
		if sh := s.lookupShard(saver.ShardRef{Product: p, Shard: push.Shard(i)}); sh != nil {
			out[i] = sh.tagged(tag, most)
		}
	}
	return out, nil
}

func (sh *shard) tagged(tag push.Tag, most int) (t saver.TaggedUsers) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for id, u := range sh.users {
		if u.tags == nil || t.Count == saver.TaggedMost || !slices.Contains(u.tags.All(), tag) {
			continue
		}
		t.Count++
		if len(t.Users) < most {
			t.Users = append(t.Users, id)
		}
	}
	return t
}
