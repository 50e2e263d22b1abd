package pebble

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/saver"
)

// Tags reads each user's as they are at one moment.
func (s *Store) Tags(_ context.Context, us []saver.UserRef) ([]saver.UserTags, error) {
	if err := s.enter("tags"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]saver.UserTags, len(us))
	for i := range us {
		if err := s.tags(us[i], &out[i]); err != nil {
			return nil, fmt.Errorf("saver: tags: %w", err)
		}
	}
	return out, nil
}

func (s *Store) tags(ref saver.UserRef, out *saver.UserTags) error {
	prefix := userPrefix(nil, ref.Shard(), ref.User)
	it, err := s.db.Scan(sub(nil, prefix, subTags), sub(nil, prefix, subToken+1))
	if err != nil {
		return err
	}
	defer it.Close()
	tags, err := scanTags(it, prefix)
	if tags != nil {
		*out = *tags
	}
	return err
}

// scanTags reads the tags of a user and its devices with an iterator whose range ends with them; nil if there are none.
func scanTags[P ~string | ~[]byte](it *embedded.Iter, prefix P) (*saver.UserTags, error) {
	own, tokens := sub(nil, prefix, subTags), sub(nil, prefix, subToken)
	var tags saver.UserTags
	for ok := it.SeekGE(own); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return nil, err
		}
		if bytes.Equal(it.Key(), own) {
			if tags.User, err = saver.DecodeTags(v); err != nil {
				return nil, err
			}
			continue
		}
		if bytes.HasPrefix(it.Key(), tokens) {
			d, of, err := saver.DecodeTokenTags(v)
			if err != nil {
				return nil, err
			}
			tags.WithToken(d, of)
			continue
		}
		d, err := saver.DecodeDeviceTags(v)
		if err != nil {
			return nil, err
		}
		tags.Devices = append(tags.Devices, d)
	}
	if err := it.Err(); err != nil || tags.Count() == 0 {
		return nil, err
	}
	return &tags, nil
}

// ChangeTags writes one batch for each stripe, and waits for all of them together. What a stripe could not write is
// answered with its error.
func (s *Store) ChangeTags(ctx context.Context, cs []saver.TagChange) []saver.TagsChanged {
	out := make([]saver.TagsChanged, len(cs))
	if err := s.enter("change tags"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	byStripe := make(map[int][]int, min(len(cs), stripes))
	for i := range cs {
		n := s.stripeOf(cs[i].Shard())
		byStripe[n] = append(byStripe[n], i)
	}
	tickets := make(map[int]embedded.Ticket, len(byStripe))
	fail := func(which []int, err error) {
		for _, i := range which {
			out[i] = saver.TagsChanged{Err: fmt.Errorf("saver: change tags: %w", err)}
		}
	}
	for n, which := range byStripe {
		ticket, err := s.changeTags(n, cs, which, out)
		if err != nil {
			fail(which, err)
			continue
		}
		tickets[n] = ticket
	}
	for n, ticket := range tickets {
		if err := ticket.Wait(ctx); err != nil {
			fail(byStripe[n], err)
		}
	}
	return out
}

// changeTags submits the changes of one stripe. The batch is flushed even if it holds nothing: what is answered as it is
// may have been written a moment ago.
func (s *Store) changeTags(n int, cs []saver.TagChange, which []int, out []saver.TagsChanged) (embedded.Ticket, error) {
	t := s.begin([]int{n})
	for _, i := range which {
		if err := t.changeTags(&cs[i], &out[i]); err != nil {
			t.giveUp()
			return embedded.Ticket{}, err
		}
	}
	return t.submit(true)
}

func (t *tx) changeTags(c *saver.TagChange, r *saver.TagsChanged) error {
	u, err := t.user(c.Shard(), c.User)
	if err != nil {
		return err
	}
	if err := t.devices(u); err != nil {
		return err
	}
	_, known := u.find(c.Device)
	var after *saver.UserTags
	after, *r = u.tags.Apply(c, known)
	t.putTags(u, after, c.Device)
	return nil
}

// putTags stores the tags of a user, of which those of one device are new, or its own if d is empty. It writes nothing
// if they are the same value as before.
func (t *tx) putTags(u *user, after *saver.UserTags, d push.DeviceID) {
	if after == u.tags {
		return
	}
	t.reindex(u, after)
	before := u.tags.Of(d)
	u.tags = after
	v := after.Of(d)
	t.val = t.val[:0]
	if d == "" {
		if after != nil && len(after.User) > 0 {
			t.val = saver.AppendTags(t.val, after.User)
		}
	} else {
		if len(v.Token) > 0 {
			t.val = saver.AppendTokenTags(t.val, &v)
		}
		if !slices.Equal(v.Token, before.Token) {
			t.key = tokenKey(t.key, u.own.prefix, d)
			t.putOrDelete()
		}
		t.val = t.val[:0]
		if len(v.Set)+len(v.Joined) > 0 {
			t.val = saver.AppendDeviceTags(t.val, &v)
		}
		if slices.Equal(v.Set, before.Set) && slices.Equal(v.Joined, before.Joined) {
			return
		}
	}
	t.key = tagsKey(t.key, u.own.prefix, d)
	t.putOrDelete()
}

// putOrDelete stores the value at hand under the key at hand, or removes what is there if the value is empty.
func (t *tx) putOrDelete() {
	if len(t.val) == 0 {
		t.b.Delete(t.key)
		return
	}
	t.b.Set(t.key, t.val)
}

// reindex has the user be found by the tags that are kept now, and by no others. The index is written in the batch of the tags.
func (t *tx) reindex(u *user, after *saver.UserTags) {
	gone, came := saver.Reindexed(u.tags, after)
	if len(gone)+len(came) == 0 {
		return
	}
	owner, _, err := parseOwner(spaceUser, []byte(u.own.prefix))
	if err != nil {
		panic("saver/pebble: a user's prefix is none") // it was made of the user
	}
	key := func(tag push.Tag) []byte {
		t.key = embedded.AppendKeyString(taggedPrefix(t.key, owner.ref, tag), owner.user)
		return t.key
	}
	for _, tag := range gone {
		t.b.Delete(key(tag))
	}
	for _, tag := range came {
		t.b.Set(key(tag), nil)
	}
}

// Tagged walks over the index.
func (s *Store) Tagged(ctx context.Context, p push.ProductID, shards int, tag push.Tag, most int) ([]saver.TaggedUsers, error) {
	if err := s.enter("tagged"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]saver.TaggedUsers, shards)
	for i := range out {
		if err := s.tagged(ctx, taggedPrefix(nil, saver.ShardRef{Product: p, Shard: push.Shard(i)}, tag), most, &out[i]); err != nil {
			return nil, fmt.Errorf("saver: tagged: %w", err)
		}
	}
	return out, nil
}

func (s *Store) tagged(ctx context.Context, prefix []byte, most int, t *saver.TaggedUsers) error {
	if err := ctx.Err(); err != nil {
		return &push.Error{Kind: push.KindUnavailable, Code: "storage_slow", Err: err}
	}
	it, err := s.db.ScanPrefix(prefix)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok && t.Count < saver.TaggedMost; ok = it.Next() {
		t.Count++
		if len(t.Users) == most {
			continue
		}
		u, _, err := embedded.CutKeyString(it.Key()[len(prefix):])
		if err != nil {
			return err
		}
		t.Users = append(t.Users, push.UserID(u))
	}
	return it.Err()
}
