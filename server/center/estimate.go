package center

import (
	"context"
	"math"
	"slices"

	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/saver"
)

const (
	// estimateSample is how many users of an audience an estimate looks at, at most.
	estimateSample = 512
	// leastOfShard is how many users each shard names at least, however many shards there are: an estimate is exact where no shard has more
	// of the audience, which few shards of a small one have.
	leastOfShard = 8
)

// estimate is how large an audience by tags is, by the tags that are kept.
type estimate struct {
	users, devices int
	exact          bool
}

// stratum is the users of one shard who have a tag, and those of them that were looked at.
type stratum struct {
	saver.TaggedUsers
	tag push.Tag
}

// estimate returns how many users, and devices, a request for tags is for: known counts of users who have a tag that every device of
// the audience has (or one of several), of whom some are looked at. ok is false if there is no such tag: then nothing but
// looking at everybody would tell.
func (c *Center) estimate(ctx context.Context, product *catalog.Product, req *request) (e estimate, ok bool, err error) {
	strata, ok, err := c.strataOf(ctx, product, req.tags)
	if err != nil || !ok {
		return e, ok, err
	}
	sample, step := sampleOf(strata)
	e.exact = step == 1 && !slices.ContainsFunc(strata, func(s stratum) bool { return s.Count != len(s.Users) })
	refs := make([]saver.UserRef, 0, len(sample))
	at := make(map[push.UserID]int) // by user, the index in refs
	for _, one := range sample {
		if _, known := at[one.user]; !known {
			at[one.user] = len(refs)
			refs = append(refs, saver.UserRef{Product: product.ID, Shards: product.Shards, User: one.user})
		}
	}
	kept, err := c.cfg.Saver.Tags(ctx, refs)
	if err != nil {
		return e, false, err
	}
	matching, err := c.matchingOf(ctx, refs, kept, req.filter())
	if err != nil {
		return e, false, err
	}
	var users, devices float64
	for _, one := range sample {
		i := at[one.user]
		// It stands for others of its stratum, and is a part of itself where it is in several.
		weight := float64(step) * float64(one.of.Count) / float64(len(one.of.Users)) / float64(in(strata, kept[i].All()))
		if matching[i] > 0 {
			users += weight
		}
		devices += weight * float64(matching[i])
	}
	e.users, e.devices = int(math.Round(users)), int(math.Round(devices))
	return e, true, nil
}

// sampled is a user that an estimate looks at, as one of a stratum.
type sampled struct {
	user push.UserID
	of   *stratum
}

// sampleOf returns one of step of the users whom the strata name.
func sampleOf(strata []stratum) (sample []sampled, step int) {
	named := 0
	for i := range strata {
		named += len(strata[i].Users)
	}
	step = max(1, (named+estimateSample-1)/estimateSample)
	n := 0
	for i := range strata {
		for _, u := range strata[i].Users {
			if n%step == 0 {
				sample = append(sample, sampled{u, &strata[i]})
			}
			n++
		}
	}
	return sample, step
}

// in returns in how many strata a user is who has these tags, of which there is one of each tag for the user's shard; at least one,
// since the tags may have changed since.
func in(strata []stratum, has []push.Tag) int {
	n := 0
	for i := range strata {
		if _, found := slices.BinarySearch(has, strata[i].tag); found && (i == 0 || strata[i].tag != strata[i-1].tag) {
			n++
		}
	}
	return max(n, 1)
}

// matchingOf returns how many devices of each user a filter admits by the tags that are kept.
func (c *Center) matchingOf(ctx context.Context, refs []saver.UserRef, kept []saver.UserTags, f *push.Filter) ([]int, error) {
	devices, err := c.cfg.Saver.Devices(ctx, refs)
	if err != nil {
		return nil, err
	}
	matching := make([]int, len(refs))
	for i := range refs {
		tags := tagsNow{kept: &kept[i]}
		for _, d := range devices[i] {
			if f.Admits(d, tags.of(d.Device)) {
				matching[i]++
			}
		}
	}
	return matching, nil
}

// strataOf returns, tag by tag, who has the tags of which every device of an audience has one: those of a list Any, or the one of
// a list All that the fewest have.
func (c *Center) strataOf(ctx context.Context, product *catalog.Product, e *push.TagExpr) (best []stratum, ok bool, err error) {
	consider := func(of []stratum) {
		if !ok || countOf(of) < countOf(best) {
			best, ok = of, true
		}
	}
	for _, t := range e.All {
		of, found, err := c.strataOfTerm(ctx, product, t)
		if err != nil {
			return nil, false, err
		}
		if found {
			consider(of)
		}
	}
	var all []stratum
	for _, t := range e.Any {
		of, found, err := c.strataOfTerm(ctx, product, t)
		if err != nil {
			return nil, false, err
		}
		if !found {
			return best, ok, nil // whoever does not have something may be meant
		}
		all = merged(all, of)
	}
	if len(e.Any) > 0 {
		consider(all)
	}
	return best, ok, nil
}

func (c *Center) strataOfTerm(ctx context.Context, product *catalog.Product, t push.TagTerm) (of []stratum, ok bool, err error) {
	if t.Expr != nil {
		return c.strataOf(ctx, product, t.Expr)
	}
	most := max(leastOfShard, estimateSample/product.Shards)
	shards, err := c.cfg.Saver.Tagged(ctx, product.ID, product.Shards, t.Tag, most)
	if err != nil {
		return nil, false, err
	}
	of = make([]stratum, len(shards))
	for i := range shards {
		of[i] = stratum{shards[i], t.Tag}
	}
	return of, true, nil
}

// merged adds the strata of tags that are not among a's.
func merged(a, b []stratum) []stratum {
	had := make(map[push.Tag]bool)
	for i := range a {
		had[a[i].tag] = true
	}
	for i := range b {
		if !had[b[i].tag] {
			a = append(a, b[i])
		}
	}
	return a
}

func countOf(strata []stratum) (n int) {
	for i := range strata {
		n += strata[i].Count
	}
	return n
}
