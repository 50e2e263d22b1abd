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
	k, err := parseKick(callOf(ctx).body, push.KickKicked)
	if err != nil {
		return nil, err
	}
	ctx, cancel := o.finishing(ctx)
	defer cancel()
	ended, err := o.endSessions(ctx, user, k)
	if err != nil {
		return nil, err
	}
	return publicapi.KickUser200JSONResponse{
		Status: certainty(ended), Sessions: ended.Sessions, Certain: optTime(ended.Certain),
	}, nil
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
	k, err := parseKick(callOf(ctx).body, push.KickRevoked)
	if err != nil {
		return nil, err
	}
	ctx, cancel := o.finishing(ctx)
	defer cancel()
	r, err := o.cfg.Catalog.Revoke(ctx, catalog.Revocation{
		Product:          callOf(ctx).principal.Product.ID,
		RevocationTarget: catalog.RevocationTarget{User: user, Device: k.Device, TokenID: k.TokenID}, Reason: k.Reason,
	})
	if err != nil {
		return nil, err
	}
	ended, err := o.endSessions(ctx, user, k)
	if err != nil {
		return nil, err
	}
	return publicapi.RevokeUser200JSONResponse{
		Status: certainty(ended), Sessions: ended.Sessions, Certain: optTime(ended.Certain),
		IssuedUntil: showTime(r.At), Ends: showTime(r.Until),
	}, nil
}

// endSessions has the rooms end sessions of a user of the product that calls.
func (o publicOps) endSessions(ctx context.Context, user push.UserID, k push.Kick) (push.Kicked, error) {
	ended, err := o.cfg.Rooms.Kick(ctx, callOf(ctx).principal.Product.ID, user, k)
	if err != nil {
		return ended, unavailable(codeRoomsUnavailable, err)
	}
	return ended, nil
}

func certainty(k push.Kicked) publicapi.Certainty {
	if k.Certain != 0 {
		return publicapi.Pending
	}
	return publicapi.Confirmed
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
		if t.Device, err = deviceID(*d); err != nil {
			return nil, err
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
	ctx, cancel := o.finishing(ctx)
	defer cancel()
	if err := o.cfg.Catalog.LiftRevocation(ctx, product, t); err != nil {
		return nil, err
	}
	return publicapi.UnrevokeUser204Response{}, nil
}

// ListRevocations serves GET /v1/revocations.
func (o publicOps) ListRevocations(
	ctx context.Context, in publicapi.ListRevocationsRequestObject,
) (publicapi.ListRevocationsResponseObject, error) {
	page, err := pageAfter(in.Params.Limit, in.Params.Cursor)
	if err != nil {
		return nil, err
	}
	if _, _, err := catalog.CheckRevocationPage(page); err != nil {
		return nil, &badParameter{"cursor", strictjson.BadFormat, "the next_cursor of the page before"}
	}
	list, err := o.cfg.Catalog.Revocations(ctx, callOf(ctx).principal.Product.ID, page)
	if err != nil {
		return nil, err
	}
	out := publicapi.ListRevocations200JSONResponse{Revocations: []publicapi.Revocation{}, NextCursor: optString(list.Next)}
	for i := range list.Items {
		r := &list.Items[i]
		out.Revocations = append(out.Revocations, publicapi.Revocation{
			User: string(r.User), Device: optString(string(r.Device)), TokenId: optString(r.TokenID), Reason: optString(r.Reason),
			IssuedUntil: showTime(r.At), Ends: showTime(r.Until),
		})
	}
	return out, nil
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
func parseKick(body []byte, kind push.KickKind) (k push.Kick, err error) {
	k.Kind = kind
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
		if kind == push.KickRevoked && seen.Has(inKickDevice) && seen.Has(inKickToken) {
			r.Note(strictjson.NotAllowed, "a device or a token id, not both", kickShape.Name(inKickToken))
		}
	})
	return k, err
}
