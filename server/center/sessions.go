package center

import (
	"context"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/center/strictjson"
	"carillon/server/push"
)

// KickUser serves POST /v1/users/{user}/kick.
func (o publicOps) KickUser(
	ctx context.Context, in publicapi.KickUserRequestObject,
) (publicapi.KickUserResponseObject, error) {
	user, err := userID(in.User)
	if err != nil {
		return nil, err
	}
	k, err := parseKick(callOf(ctx).body, false)
	if err != nil {
		return nil, err
	}
	k.Kind = push.KickKicked
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.limits.StoreDeadline)
	defer cancel()
	ended, err := o.cfg.Rooms.Kick(ctx, callOf(ctx).principal.Product.ID, user, k)
	if err != nil {
		return nil, unavailable(codeRoomsUnavailable, err)
	}
	return publicapi.KickUser200JSONResponse{
		Status: certainty(ended), Sessions: ended.Sessions, Certain: optTime(ended.Certain),
	}, nil
}

func certainty(k push.Kicked) publicapi.Certainty {
	if k.Certain != 0 {
		return publicapi.Pending
	}
	return publicapi.Confirmed
}

// RevokeUser serves POST /v1/users/{user}/revoke. The revocation is stored first, so that from then on nobody is let in, and
// sessions are ended after that: a device that is connecting meanwhile finds the one or is found by the other.
func (o publicOps) RevokeUser(
	ctx context.Context, in publicapi.RevokeUserRequestObject,
) (publicapi.RevokeUserResponseObject, error) {
	user, err := userID(in.User)
	if err != nil {
		return nil, err
	}
	k, err := parseKick(callOf(ctx).body, true)
	if err != nil {
		return nil, err
	}
	k.Kind = push.KickRevoked
	product := callOf(ctx).principal.Product.ID
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.limits.StoreDeadline)
	defer cancel()
	r, err := o.cfg.Catalog.Revoke(ctx, catalog.Revocation{
		Product: product, RevocationTarget: catalog.RevocationTarget{User: user, Device: k.Device, TokenID: k.TokenID},
		Reason: k.Reason,
	})
	if err != nil {
		return nil, err
	}
	ended, err := o.cfg.Rooms.Kick(ctx, product, user, k)
	if err != nil {
		return nil, unavailable(codeRoomsUnavailable, err)
	}
	return publicapi.RevokeUser200JSONResponse{
		Status: certainty(ended), Sessions: ended.Sessions, Certain: optTime(ended.Certain),
		IssuedUntil: showTime(r.At), Ends: showTime(r.Until),
	}, nil
}

// UnrevokeUser serves DELETE /v1/users/{user}/revoke.
func (o publicOps) UnrevokeUser(
	ctx context.Context, in publicapi.UnrevokeUserRequestObject,
) (publicapi.UnrevokeUserResponseObject, error) {
	user, err := userID(in.User)
	if err != nil {
		return nil, err
	}
	t := catalog.RevocationTarget{User: user}
	if d := in.Params.Device; d != nil {
		t.Device = push.DeviceID(*d)
		if err := t.Device.Check(); err != nil {
			return nil, &badParameter{"device", strictjson.BadFormat, err.Error()}
		}
	}
	if id := in.Params.TokenId; id != nil {
		t.TokenID = *id
		if err := catalog.CheckTokenID(t.TokenID); err != nil {
			return nil, &badParameter{"token_id", strictjson.BadFormat, err.Error()}
		}
		if t.Device != "" {
			return nil, &badParameter{"token_id", strictjson.NotAllowed, "a device or a token id, not both"}
		}
	}
	product := callOf(ctx).principal.Product.ID
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.limits.StoreDeadline)
	defer cancel()
	if err := o.cfg.Catalog.LiftRevocation(ctx, product, t); err != nil {
		return nil, err
	}
	return publicapi.UnrevokeUser204Response{}, nil
}

const (
	inKickDevice = iota
	inKickToken
	inKickReason
)

var (
	kickShape   = strictjson.NewShape(0, "device", "token_id", "reason")
	tokenIDRule = strictjson.Rule{Least: 1, Most: catalog.MaxTokenID, NoControl: true}
	reasonRule  = strictjson.Rule{Most: catalog.MaxReason, NoControl: true, NoC1: true}
)

// parseKick reads KickRequest, or RevokeRequest, which names one thing at most.
func parseKick(body []byte, revoke bool) (k push.Kick, err error) {
	err = parseBody(body, kickShape, func(r *strictjson.Reader, i int) {
		switch i {
		case inKickDevice:
			s, _ := r.Text(deviceRule)
			k.Device = push.DeviceID(s)
		case inKickToken:
			k.TokenID, _ = r.Text(tokenIDRule)
		case inKickReason:
			k.Reason, _ = r.Text(reasonRule)
		}
	}, func(r *strictjson.Reader, seen strictjson.Set) {
		if revoke && seen.Has(inKickDevice) && seen.Has(inKickToken) {
			r.Note(strictjson.NotAllowed, "a device or a token id, not both", kickShape.Name(inKickToken))
		}
	})
	return k, err
}
