package center

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	publicapi "carillon/server/center/api/public"
	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/saver"
)

// GetUserTags serves GET /v1/users/{user}/tags.
func (o publicOps) GetUserTags(
	ctx context.Context, in publicapi.GetUserTagsRequestObject,
) (publicapi.GetUserTagsResponseObject, error) {
	ref, err := userRefOf(ctx, in.User)
	if err != nil {
		return nil, err
	}
	kept, err := o.tagsOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	return publicapi.GetUserTags200JSONResponse{Tags: showTags(kept.User)}, nil
}

// SetUserTags serves PUT /v1/users/{user}/tags.
func (o publicOps) SetUserTags(
	ctx context.Context, in publicapi.SetUserTagsRequestObject,
) (publicapi.SetUserTagsResponseObject, error) {
	tags, err := o.changeOne(ctx, in.User, nil, parseTagSet)
	if err != nil {
		return nil, err
	}
	return publicapi.SetUserTags200JSONResponse{Tags: tags}, nil
}

// ChangeUserTags serves PATCH /v1/users/{user}/tags.
func (o publicOps) ChangeUserTags(
	ctx context.Context, in publicapi.ChangeUserTagsRequestObject,
) (publicapi.ChangeUserTagsResponseObject, error) {
	tags, err := o.changeOne(ctx, in.User, nil, parseTagChange)
	if err != nil {
		return nil, err
	}
	return publicapi.ChangeUserTags200JSONResponse{Tags: tags}, nil
}

// GetDeviceTags serves GET /v1/users/{user}/devices/{device}/tags.
func (o publicOps) GetDeviceTags(
	ctx context.Context, in publicapi.GetDeviceTagsRequestObject,
) (publicapi.GetDeviceTagsResponseObject, error) {
	ref, err := userRefOf(ctx, in.User)
	if err != nil {
		return nil, err
	}
	device, err := deviceID(in.Device)
	if err != nil {
		return nil, err
	}
	user, err := o.cfg.Saver.User(ctx, ref)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(user.Devices, func(v saver.Device) bool { return v.Device == device }) {
		return nil, push.Errorf(push.KindNotFound, string(codeDeviceNotFound), "")
	}
	kept, err := o.tagsOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	of := kept.Of(device)
	return publicapi.GetDeviceTags200JSONResponse{Tags: showTags(of.Set), Joined: showTags(of.Joined)}, nil
}

// SetDeviceTags serves PUT /v1/users/{user}/devices/{device}/tags.
func (o publicOps) SetDeviceTags(
	ctx context.Context, in publicapi.SetDeviceTagsRequestObject,
) (publicapi.SetDeviceTagsResponseObject, error) {
	tags, err := o.changeOne(ctx, in.User, &in.Device, parseTagSet)
	if err != nil {
		return nil, err
	}
	return publicapi.SetDeviceTags200JSONResponse{Tags: tags}, nil
}

// ChangeDeviceTags serves PATCH /v1/users/{user}/devices/{device}/tags.
func (o publicOps) ChangeDeviceTags(
	ctx context.Context, in publicapi.ChangeDeviceTagsRequestObject,
) (publicapi.ChangeDeviceTagsResponseObject, error) {
	tags, err := o.changeOne(ctx, in.User, &in.Device, parseTagChange)
	if err != nil {
		return nil, err
	}
	return publicapi.ChangeDeviceTags200JSONResponse{Tags: tags}, nil
}

// ChangeTagsBatch serves POST /v1/tags/batch.
func (o publicOps) ChangeTagsBatch(
	ctx context.Context, _ publicapi.ChangeTagsBatchRequestObject,
) (publicapi.ChangeTagsBatchResponseObject, error) {
	a := callOf(ctx)
	items, err := parseTagBatch(a.body, o.limits.Items)
	if err != nil {
		return nil, err
	}
	var changes []saver.TagChange
	for i := range items {
		if items[i].err == nil {
			c := items[i].change
			c.Product, c.Shards = a.principal.Product.ID, a.principal.Product.Shards
			changes = append(changes, c)
		}
	}
	changed := o.changeTags(ctx, changes)
	answer := publicapi.ChangeTagsBatch200JSONResponse{Results: make([]publicapi.TagBatchResult, len(items))}
	var first error
	failed := 0
	for i := range items {
		err := items[i].err
		var r saver.TagsChanged
		if err == nil {
			r, changed = changed[0], changed[1:]
			err = r.Err
		}
		out := &answer.Results[i]
		if err == nil {
			tags := showTags(r.Tags)
			out.Status, out.Tags = http.StatusOK, &tags
			continue
		}
		p := o.problemOf(err)
		out.Status, out.Problem = p.Status, &p
		if p.Status >= http.StatusInternalServerError {
			failed++
			first = cmp.Or(first, err)
		}
	}
	if first != nil {
		p := o.problemOf(first)
		o.logFailure(a, &p, first, failed)
	}
	return answer, nil
}

// changeOne makes the change that the body of a call asks for and returns the set as it is then.
func (o publicOps) changeOne(
	ctx context.Context, user string, device *string, parse func([]byte) (saver.TagChange, error),
) ([]string, error) {
	ref, err := userRefOf(ctx, user)
	if err != nil {
		return nil, err
	}
	var of push.DeviceID
	if device != nil {
		if of, err = deviceID(*device); err != nil {
			return nil, err
		}
	}
	c, err := parse(callOf(ctx).body)
	if err != nil {
		return nil, err
	}
	c.UserRef, c.Device = ref, of
	r := o.changeTags(ctx, []saver.TagChange{c})[0]
	if r.Err != nil {
		return nil, r.Err
	}
	return showTags(r.Tags), nil
}

// changeTags stores changes of one product and has live sessions look at them, also at those that changed nothing: the call
// before this one may have come no further than the store.
func (c *Center) changeTags(ctx context.Context, cs []saver.TagChange) []saver.TagsChanged {
	ctx, cancel := c.finishing(ctx)
	defer cancel()
	out := c.cfg.Saver.ChangeTags(ctx, cs)
	var users []push.UserID
	for i := range out {
		if out[i].Err == nil {
			users = append(users, cs[i].User)
		}
	}
	if len(users) == 0 {
		return out
	}
	slices.Sort(users)
	if err := c.cfg.Rooms.Retag(ctx, cs[0].Product, slices.Compact(users)); err != nil {
		err = unavailable(codeRoomsUnavailable, err)
		for i := range out {
			out[i].Err = cmp.Or(out[i].Err, err)
		}
	}
	return out
}

func (c *Center) tagsOf(ctx context.Context, ref saver.UserRef) (*saver.UserTags, error) {
	kept, err := c.cfg.Saver.Tags(ctx, []saver.UserRef{ref})
	if err != nil {
		return nil, err
	}
	return &kept[0], nil
}

// tagsNow are the tags of a user's devices as far as a center knows them: of a device that is online those of its session, of
// another those that are kept, among them those of its newest token.
type tagsNow struct {
	kept     *saver.UserTags
	sessions []push.LiveSession
}

func (c *Center) tagsNow(ctx context.Context, ref saver.UserRef) (t tagsNow, err error) {
	if t.kept, err = c.tagsOf(ctx, ref); err != nil {
		return t, err
	}
	if t.sessions, err = c.cfg.Rooms.Sessions(ctx, ref.Product, ref.User); err != nil {
		return t, unavailable(codeRoomsUnavailable, err)
	}
	return t, nil
}

// of returns what tells whether a device has a tag.
func (t tagsNow) of(d push.DeviceID) func(push.Tag) bool {
	if s := newestOf(t.sessions, d); s != nil {
		return push.TagsIn(s.Tags)
	}
	kept := t.kept.Kept(d)
	return push.TagsIn(push.UniteTags(kept.Given, kept.Joined, kept.Token))
}

// userRefOf returns the user that a path names, of the product that calls.
func userRefOf(ctx context.Context, user string) (saver.UserRef, error) {
	name, err := userID(user)
	product := callOf(ctx).principal.Product
	return saver.UserRef{Product: product.ID, Shards: product.Shards, User: name}, err
}

func deviceID(s string) (push.DeviceID, error) {
	d := push.DeviceID(s)
	if err := d.Check(); err != nil {
		return "", &badParameter{"device", strictjson.BadFormat, err.Error()}
	}
	return d, nil
}

// showTags never returns nil, so that none is an empty list.
func showTags(tags []push.Tag) []string {
	out := make([]string, len(tags))
	for i, t := range tags {
		out[i] = string(t)
	}
	return out
}
