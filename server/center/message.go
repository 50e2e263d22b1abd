package center

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/center/strictjson"
	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/saver"
)

// RecallMessage serves DELETE /v1/messages/{id}.
func (o publicOps) RecallMessage(
	ctx context.Context, in publicapi.RecallMessageRequestObject,
) (publicapi.RecallMessageResponseObject, error) {
	id, err := messageID(in.Id)
	if err != nil {
		return nil, err
	}
	product := callOf(ctx).principal.Product
	// A recall that was begun is told to the rooms even if the caller goes away.
	storing, cancel := o.finishing(ctx)
	defer cancel()
	rec, err := o.cfg.Saver.Recall(storing, saver.Recall{
		Product: product.ID, Shards: product.Shards, Limits: product.Limits.WithDefaults(), ID: id,
	})
	if err != nil {
		return nil, err
	}
	failpoint.Hit(failpoint.CenterRecallStored)
	if rec.First {
		o.notifyRecalled(product.ID, id, &rec)
	}
	answer := publicapi.RecallMessage200JSONResponse{Id: id.String()}
	if rec.Message != nil {
		answer.Ref = optString(rec.Message.Ref)
	}
	return answer, nil
}

// notifyRecalled tells the rooms that the store named, for the devices that the message was for.
func (c *Center) notifyRecalled(product push.ProductID, id push.MsgID, rec *saver.Recalled) {
	like := &push.Delivery{Product: product, Recall: id, Lineage: rec.Lineage}
	if len(rec.Common) > 0 {
		like.Filter = rec.Common[0].Filter // the same in every shard
	}
	var ds deliveries
	ds.addOwn(like, rec.Own, func(i int) *push.Filter { return rec.Own[i].Filter })
	ds.addCommon(like, rec.Common)
	c.deliver(ds)
}

// messageID reads an id from a path.
func messageID(s string) (push.MsgID, error) {
	id, err := push.ParseMsgID(s)
	if err != nil {
		return 0, &badParameter{"id", strictjson.BadFormat, err.Error()}
	}
	return id, nil
}

// userID reads a user from a path or query.
func userID(s string) (push.UserID, error) {
	u := push.UserID(s)
	if err := u.Check(); err != nil {
		return "", &badParameter{"user", strictjson.BadFormat, err.Error()}
	}
	return u, nil
}

// The sizes of a page.
const (
	defaultPage = 50
	maxPage     = 200
)

// pageOf judges the parameter limit.
func pageOf(limit *int) (int, error) {
	switch {
	case limit == nil:
		return defaultPage, nil
	case *limit < 1:
		return 0, &badParameter{"limit", strictjson.TooSmall, "1 to " + strconv.Itoa(maxPage)}
	case *limit > maxPage:
		return 0, &badParameter{"limit", strictjson.TooLarge, "1 to " + strconv.Itoa(maxPage)}
	}
	return *limit, nil
}

// GetMessage serves GET /v1/messages/{id}.
func (o publicOps) GetMessage(
	ctx context.Context, in publicapi.GetMessageRequestObject,
) (publicapi.GetMessageResponseObject, error) {
	id, err := messageID(in.Id)
	if err != nil {
		return nil, err
	}
	limit, err := pageOf(in.Params.Limit)
	if err != nil {
		return nil, err
	}
	var user push.UserID
	if in.Params.User != nil {
		if user, err = userID(*in.Params.User); err != nil {
			return nil, err
		}
	}
	after := 0
	if in.Params.Cursor != nil {
		if after, err = strconv.Atoi(*in.Params.Cursor); err != nil || after < 0 {
			return nil, &badParameter{"cursor", strictjson.BadFormat, "next_cursor of an answer"}
		}
	}
	product := callOf(ctx).principal.Product
	rec, err := o.cfg.Saver.Message(ctx, product.ID, id)
	if err != nil && push.KindOf(err) == push.KindNotFound {
		answer, err := o.describeTask(ctx, product, id, user)
		return publicapi.GetMessage200JSONResponse(answer), err
	}
	if err != nil {
		return nil, err
	}
	answer := describe(&rec)
	places := placesOf(&rec, product, user)
	places = places[min(after, len(places)):]
	if len(places) > limit {
		places = places[:limit]
		answer.NextCursor = new(strconv.Itoa(after + limit))
	}
	for _, p := range places {
		devices, err := o.deviceStates(ctx, product, &rec, p)
		if err != nil {
			return nil, err
		}
		answer.Users = append(answer.Users, publicapi.MessageUser{User: string(p.user), Devices: devices})
	}
	return publicapi.GetMessage200JSONResponse(answer), nil
}

// describe returns a message's attributes, without users.
func describe(rec *saver.Record) publicapi.Message {
	m := rec.Message
	out := publicapi.Message{
		Id: m.ID.String(), Ref: optString(m.Ref), Persistent: m.Persistent, BodyKind: publicapi.Json,
		CollapseKey: optString(m.CollapseKey), Created: showTime(m.Created), Expires: showTime(m.Expires),
		Recalled: optTime(rec.Recalled), Membership: publicapi.AtSend, Users: []publicapi.MessageUser{},
	}
	if m.Kind == push.BodyBinary {
		out.BodyKind = publicapi.Binary
	}
	if len(m.Headers) > 0 {
		hs := make(map[string]string, len(m.Headers))
		for _, h := range m.Headers {
			hs[h.Name] = h.Value
		}
		out.Headers = &hs
	}
	if rec.Everyone {
		out.Membership = publicapi.AtDelivery
		if rec.Filter == nil || rec.Filter.Tags == nil {
			out.Targets.Everyone = new(true)
		}
		describeFilter(&out.Targets, rec.Filter)
		return out
	}
	devices := 0
	for _, p := range rec.Own {
		if p.Filter != nil {
			devices += len(p.Filter.Devices)
		}
	}
	out.Targets.Users = new(len(rec.Own))
	if devices > 0 {
		out.Targets.Devices = &devices
	}
	if len(rec.Own) > 0 {
		describeFilter(&out.Targets, rec.Own[0].Filter) // beside devices the same for all
	}
	return out
}

// describeFilter tells what a message's filter asks beside devices.
func describeFilter(t *publicapi.Targets, f *push.Filter) {
	if f == nil {
		return
	}
	if f.Tags != nil {
		t.Tags = new(json.RawMessage(appendTagExpr(nil, f.Tags)))
	}
	if f.Platforms != 0 {
		var names []publicapi.Platform
		for _, p := range f.Platforms.Platforms() {
			names = append(names, publicapi.Platform(p.String()))
		}
		t.Platforms = &names
	}
	if len(f.Classes) > 0 {
		t.Classes = new(slices.Clone(f.Classes))
	}
}

// userPlace is where a message lies, or lay, for one user.
type userPlace struct {
	user   push.UserID
	slot   push.SlotKind
	place  push.Place
	filter *push.Filter
}

// placesOf returns where a message lies for the users that it is for, or for the one that is asked about, if there is
// one. Of a message to everyone only that one is told.
func placesOf(rec *saver.Record, product *catalog.Product, user push.UserID) []userPlace {
	if rec.Everyone {
		shard := int(push.ShardOf(user, product.Shards))
		if user == "" || shard >= len(rec.Common) {
			return nil
		}
		return []userPlace{{user, push.Common, rec.Common[shard], rec.Filter}}
	}
	places := make([]userPlace, 0, len(rec.Own))
	for _, p := range rec.Own {
		if user == "" || p.User == user {
			places = append(places, userPlace{p.User, push.Own, p.Place, p.Filter})
		}
	}
	return slices.Clip(places)
}
