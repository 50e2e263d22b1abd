package redis

import (
	"context"
	"fmt"
	"slices"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

const tagsVersion = 2 + nextversion.Step

// appendTags appends what is kept for a user: version, the user's tags as AppendTags writes them (nothing if there are none) with the
// length before them, and those of each device as AppendDeviceTags does. Version 2 added the tags of tokens, as AppendTokenTags writes
// those of each device, with the length of all before them. Where there are none, the value is of version 1.
func appendTags(dst []byte, t *saver.UserTags) []byte {
	var tokens []byte
	for i := range t.Devices {
		if v := &t.Devices[i]; len(v.Token) > 0 {
			tokens = appendText(tokens, string(saver.AppendTokenTags(nil, v)))
		}
	}
	if len(tokens) > 0 || nextversion.Enabled {
		part := append(appendText(nil, string(tokens)), nextversion.Part...)
		dst = appendText(append(dst, tagsVersion), string(part))
	} else {
		dst = append(dst, 1)
	}
	user := ""
	if len(t.User) > 0 {
		user = string(saver.AppendTags(nil, t.User))
	}
	dst = appendText(dst, user)
	for i := range t.Devices {
		if v := &t.Devices[i]; len(v.Set)+len(v.Joined) > 0 {
			dst = appendText(dst, string(saver.AppendDeviceTags(nil, v)))
		}
	}
	return dst
}

// decodeTags reads what appendTags wrote.
func decodeTags(v any) (*saver.UserTags, error) {
	s, ok := v.(string)
	if !ok {
		return nil, corrupt("the tags of a user")
	}
	r := reader{v: s}
	tokens, err := decodeTokens(&r)
	if err != nil {
		return nil, err
	}
	t := &saver.UserTags{}
	if user := r.text(); user != "" {
		if t.User, err = saver.DecodeTags([]byte(user)); err != nil {
			return nil, err
		}
	}
	for len(r.v) > 0 {
		d, err := saver.DecodeDeviceTags([]byte(r.text()))
		if err != nil {
			return nil, err
		}
		t.Devices = append(t.Devices, d)
	}
	for i := range tokens {
		t.WithToken(tokens[i].Device, tokens[i].Token)
	}
	return t, r.end("the tags of a user")
}

// decodeTokens reads the version, and the tags of tokens if they were added: of the version after ours what stands behind them is passed over.
func decodeTokens(r *reader) (tokens []saver.DeviceTags, err error) {
	version := r.byte()
	switch {
	case version < 1 || version > tagsVersion+1:
		r.fail()
		return nil, nil
	case version == 1:
		return nil, nil
	}
	part := reader{v: r.text()}
	of := reader{v: part.text()}
	if part.bad || version <= tagsVersion && !nextversion.Enabled && len(part.v) > 0 {
		r.fail()
	}
	for len(of.v) > 0 {
		var v saver.DeviceTags
		if v.Device, v.Token, err = saver.DecodeTokenTags([]byte(of.text())); err != nil {
			return nil, err
		}
		tokens = append(tokens, v)
	}
	if of.bad || version <= tagsVersion && !nextversion.Enabled && len(tokens) == 0 {
		r.fail()
	}
	return tokens, nil
}

// Tags reads those of one shard together.
func (s *Store) Tags(ctx context.Context, us []saver.UserRef) ([]saver.UserTags, error) {
	if err := s.enter("tags"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]saver.UserTags, len(us))
	err := s.lookEach(ctx, len(us), func(i int) (redisdb.Tag, redisdb.Command) {
		t := tagOf(us[i].Shard())
		return t, redisdb.Command{Name: "GET", Key: t.Key(kindTags, string(us[i].User))}
	}, func(i int, reply any, _ redisdb.Answer) error {
		if reply == nil {
			return nil
		}
		t, err := decodeTags(reply)
		if err == nil {
			out[i] = *t
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("saver: tags: %w", err)
	}
	return out, nil
}

// Tagged asks the set of each shard for its size and some of its members.
func (s *Store) Tagged(ctx context.Context, p push.ProductID, shards int, tag push.Tag, most int) ([]saver.TaggedUsers, error) {
	if err := s.enter("tagged"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]saver.TaggedUsers, shards)
	err := s.lookEach(ctx, 2*shards, func(i int) (redisdb.Tag, redisdb.Command) {
		t := tagOf(saver.ShardRef{Product: p, Shard: push.Shard(i / 2)})
		key := t.Key(kindTagged, string(tag))
		if i%2 == 0 {
			return t, redisdb.Command{Name: "SCARD", Key: key}
		}
		return t, redisdb.Command{Name: "SRANDMEMBER", Key: key, Args: []any{most}}
	}, func(i int, reply any, _ redisdb.Answer) error {
		t := &out[i/2]
		if i%2 == 0 {
			n, ok := reply.(int64)
			if !ok {
				return corrupt("a set of users with a tag")
			}
			t.Count = int(min(n, saver.TaggedMost))
			return nil
		}
		users, ok := reply.([]any)
		if !ok {
			return corrupt("a set of users with a tag")
		}
		for _, u := range users {
			name, _ := u.(string)
			t.Users = append(t.Users, push.UserID(name))
		}
		t.Count = max(t.Count, len(t.Users)) // it was counted a moment before
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("saver: tagged: %w", err)
	}
	return out, nil
}

// ChangeTags does what is for one user in one step.
func (s *Store) ChangeTags(ctx context.Context, cs []saver.TagChange) []saver.TagsChanged {
	out := make([]saver.TagsChanged, len(cs))
	if err := s.enter("change tags"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	for n := 0; n < len(cs); n += runMost {
		end := min(n+runMost, len(cs))
		s.changeTags(ctx, cs[n:end], out[n:end])
	}
	for i := range out {
		if err := out[i].Err; err != nil {
			out[i].Err = fmt.Errorf("saver: change tags: %w", err)
		}
	}
	return out
}

func (s *Store) changeTags(ctx context.Context, cs []saver.TagChange, out []saver.TagsChanged) {
	of := make(map[slotKeys]*userOp)
	which := make(map[*userOp][]int)
	var ops []op
	var numbers []uint64
	for i := range cs {
		k := ownKeys(cs[i].UserRef)
		o := of[k]
		if o == nil {
			o = s.newUserOp(k, userParts{tags: true}, func(o *userOp, _ redisdb.Answer) error {
				for _, i := range which[o] {
					o.changeTags(&cs[i], &out[i])
				}
				return nil
			})
			of[k] = o
			ops, numbers = append(ops, o), append(numbers, s.turns.of(k))
		}
		which[o] = append(which[o], i)
	}
	held, err := s.turns.take(ctx, numbers)
	if err != nil {
		for i := range out {
			out[i].Err = err
		}
		return
	}
	defer s.turns.release(held)
	s.run(ctx, ops, nil)
	for _, o := range ops {
		if err := o.(*userOp).err; err != nil {
			for _, i := range which[o.(*userOp)] {
				out[i] = saver.TagsChanged{Err: err}
			}
		}
	}
}

// changeTags makes one change. What is answered is stored: also what was so before is written again, so that it is confirmed
// whoever wrote it.
func (o *userOp) changeTags(c *saver.TagChange, out *saver.TagsChanged) {
	known := false
	if c.Device != "" {
		var i int
		if i, known = o.find(c.Device); known {
			o.devices[i].changed = true // it is still there when the tags come: this writes it as it is
		}
	}
	was := o.tags
	o.tags, *out = o.tags.Apply(c, known)
	if o.tags != nil && o.tags == was && out.Err == nil {
		same := *o.tags
		o.tags = &same
	}
	if out.Err == nil {
		out.Tags = slices.Clone(out.Tags)
	}
}
