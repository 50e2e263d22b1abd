package saver

import (
	"cmp"
	"slices"

	"carillon/server/planted"
	"carillon/server/push"
)

// UserTags are the tags that are kept for a user and its devices. Stores treat one as immutable and replace it as a whole.
type UserTags struct {
	User    []push.Tag   // every device of the user has them; sorted, each once
	Devices []DeviceTags // by id, only those that have some
}

// DeviceTags are the tags that are kept for one device beside its user's. Each list is sorted, each tag once; a tag may
// be in several.
type DeviceTags struct {
	Device push.DeviceID
	Set    []push.Tag // by the product's server
	Joined []push.Tag // by the device's own client
	Token  []push.Tag // of the newest token that the device came with
}

// KeptTags are the tags that are kept for a device as its session needs them: those that the product's server gave, to
// the device or its user, those that its client joined, and those of its token. Each is sorted, each tag once; a tag may be in several.
type KeptTags struct {
	Given  []push.Tag
	Joined []push.Tag
	Token  []push.Tag
}

// TagChange changes one set of tags: first all go if Replace says so, then those in Remove, then those in Add come.
// Removing a tag that is not there, and adding one that is, is no error. Whoever asks has checked the tags.
type TagChange struct {
	UserRef
	Device  push.DeviceID // empty: the user's own tags
	Joined  bool          // with a Device: the tags that its client joined, not those set by the product's server
	Token   bool          // with a Device, and without Joined: the tags of its token
	Replace bool
	Remove  []push.Tag
	Add     []push.Tag
}

// TagsChanged is the result of one change.
type TagsChanged struct {
	Tags    []push.Tag // the set as it is now; sorted, each once
	Changed bool       // it was another before
	Err     error      // KindNotFound, code "device_not_found". KindConflict, code "too_many_tags". KindUnavailable.
}

// Apply judges a change to what is kept for a user, nil for nothing, and returns what is to be kept instead: nil for
// nothing, and t itself if nothing changed or the change is refused. The result shares no list that the change made with
// its caller's arguments or with TagsChanged. known says that the change's device exists.
func (t *UserTags) Apply(c *TagChange, known bool) (*UserTags, TagsChanged) {
	if c.Device != "" && !known {
		return t, TagsChanged{Err: push.Errorf(push.KindNotFound, "device_not_found", "")}
	}
	after := &UserTags{}
	if t != nil {
		*after = UserTags{User: t.User, Devices: slices.Clone(t.Devices)}
	}
	set := &after.User
	if c.Device != "" {
		i, found := after.find(c.Device)
		if !found {
			after.Devices = slices.Insert(after.Devices, i, DeviceTags{Device: c.Device})
		}
		switch v := &after.Devices[i]; {
		case c.Token:
			set = &v.Token
		case c.Joined && !planted.Is(planted.JoinedForSet):
			set = &v.Joined
		default:
			set = &v.Set
		}
	}
	before := *set
	*set = c.applied(before)
	r := TagsChanged{Tags: slices.Clone(*set), Changed: !slices.Equal(*set, before)}
	if !r.Changed {
		return t, r
	}
	if after.most() > push.MaxTags || c.Token && len(r.Tags) > push.MaxTags {
		return t, TagsChanged{Err: push.Errorf(push.KindConflict, "too_many_tags",
			"a device would have more than %d tags, its user's among them", push.MaxTags)}
	}
	return after.tidy(), r
}

// applied returns a set after the change.
func (c *TagChange) applied(set []push.Tag) []push.Tag {
	if c.Replace {
		set = nil
	}
	kept := make([]push.Tag, 0, len(set))
	for _, tag := range set {
		if !slices.Contains(c.Remove, tag) {
			kept = append(kept, tag)
		}
	}
	return push.UniteTags(kept, c.Add)
}

// most returns how many tags the device with the most of them has; a device of the user that has none of its own counts
// with the user's. Those of a token do not count: it has a limit of its own, and what a server or a client did before may not
// keep a device from coming with another token.
func (t *UserTags) most() int {
	n := len(t.User)
	for i := range t.Devices {
		n = max(n, len(push.UniteTags(t.User, t.Devices[i].Set, t.Devices[i].Joined)))
	}
	return n
}

// tidy removes devices that have no tags, and returns nil if nothing is left.
func (t *UserTags) tidy() *UserTags {
	t.Devices = slices.DeleteFunc(t.Devices, func(d DeviceTags) bool { return len(d.Set)+len(d.Joined)+len(d.Token) == 0 })
	if len(t.Devices) == 0 {
		t.Devices = nil
	}
	if len(t.User) == 0 && t.Devices == nil {
		return nil
	}
	return t
}

// Forget returns what is kept when a device is forgotten.
func (t *UserTags) Forget(d push.DeviceID) *UserTags {
	i, found := t.find(d)
	if !found {
		return t
	}
	return (&UserTags{User: t.User, Devices: slices.Delete(slices.Clone(t.Devices), i, i+1)}).tidy()
}

// Of returns the tags of one device, none if it has none of its own.
func (t *UserTags) Of(d push.DeviceID) DeviceTags {
	if i, found := t.find(d); found {
		return t.Devices[i]
	}
	return DeviceTags{Device: d}
}

// Kept returns what a device's session needs, in slices of its own.
func (t *UserTags) Kept(d push.DeviceID) KeptTags {
	if t == nil {
		return KeptTags{}
	}
	v := t.Of(d)
	return KeptTags{Given: push.UniteTags(t.User, v.Set), Joined: slices.Clone(v.Joined), Token: slices.Clone(v.Token)}
}

// All returns every tag that is kept for the user or for a device, sorted, each once.
func (t *UserTags) All() []push.Tag {
	if t == nil {
		return nil
	}
	sets := [][]push.Tag{t.User}
	for i := range t.Devices {
		sets = append(sets, t.Devices[i].Set, t.Devices[i].Joined, t.Devices[i].Token)
	}
	return push.UniteTags(sets...)
}

// Reindexed returns, when what is kept of a user changes, the tags that the user is no longer to be found by, and those that
// are new.
func Reindexed(before, after *UserTags) (gone, came []push.Tag) {
	had, has := before.All(), after.All()
	without := func(tags, others []push.Tag) (rest []push.Tag) {
		for _, t := range tags {
			if _, ok := slices.BinarySearch(others, t); !ok {
				rest = append(rest, t)
			}
		}
		return rest
	}
	return without(had, has), without(has, had)
}

// Clone returns a copy that shares nothing; that of nil is empty.
func (t *UserTags) Clone() UserTags {
	if t == nil {
		return UserTags{}
	}
	c := UserTags{User: slices.Clone(t.User), Devices: slices.Clone(t.Devices)}
	for i := range c.Devices {
		d := &c.Devices[i]
		d.Set, d.Joined, d.Token = slices.Clone(d.Set), slices.Clone(d.Joined), slices.Clone(d.Token)
	}
	return c
}

// Count returns how many tags are kept in all.
func (t *UserTags) Count() int {
	if t == nil {
		return 0
	}
	n := len(t.User)
	for i := range t.Devices {
		n += len(t.Devices[i].Set) + len(t.Devices[i].Joined) + len(t.Devices[i].Token)
	}
	return n
}

// WithToken notes the tags of a device's token, while a store reads them piece by piece into a value of its own.
func (t *UserTags) WithToken(d push.DeviceID, tags []push.Tag) {
	i, found := t.find(d)
	if !found {
		t.Devices = slices.Insert(t.Devices, i, DeviceTags{Device: d})
	}
	t.Devices[i].Token = tags
}

// find returns where a device's tags lie, or would lie.
func (t *UserTags) find(d push.DeviceID) (int, bool) {
	if t == nil {
		return 0, false
	}
	return slices.BinarySearchFunc(t.Devices, d, func(v DeviceTags, d push.DeviceID) int { return cmp.Compare(v.Device, d) })
}
