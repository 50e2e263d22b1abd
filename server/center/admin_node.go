package center

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	adminapi "carillon/server/center/api/admin"
	"carillon/server/push"
)

// ListSessions serves GET /admin/v1/sessions.
func (o adminOps) ListSessions(
	ctx context.Context, in adminapi.ListSessionsRequestObject,
) (adminapi.ListSessionsResponseObject, error) {
	product, err := productID(in.Params.Product)
	if err != nil {
		return nil, err
	}
	user, err := userID(in.Params.User)
	if err != nil {
		return nil, err
	}
	if _, err := o.cfg.Catalog.LookupProduct(ctx, product); err != nil {
		return nil, err
	}
	sessions, err := o.cfg.Rooms.Sessions(ctx, product, user)
	if err != nil {
		return nil, unavailable(codeRoomsUnavailable, err)
	}
	slices.SortFunc(sessions, func(a, b push.LiveSession) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Epoch, b.Epoch))
	})
	out := adminapi.ListSessions200JSONResponse{Sessions: []adminapi.Session{}}
	for i := range sessions {
		s := &sessions[i]
		out.Sessions = append(out.Sessions, adminapi.Session{
			Device: string(s.Device), Platform: adminapi.Platform(s.Platform.String()), Class: optString(s.Class),
			Transport: s.Transport, Room: string(s.Room), Epoch: strconv.FormatUint(uint64(s.Epoch), 10), Since: showTime(s.Since),
			Sent: cursorOf(product, user, s.Device, s.Sent), Acknowledged: cursorOf(product, user, s.Device, s.Acked),
		})
	}
	return out, nil
}

// CreateBackup serves POST /admin/v1/backup.
func (o adminOps) CreateBackup(
	ctx context.Context, _ adminapi.CreateBackupRequestObject,
) (adminapi.CreateBackupResponseObject, error) {
	directory, err := parseBackup(callOf(ctx).body)
	if err != nil {
		return nil, err
	}
	if o.cfg.Backup == nil {
		return nil, errNotSupported
	}
	begun := o.cfg.Clock.Now()
	if err := o.cfg.Backup(ctx, directory); err != nil {
		return nil, err
	}
	took := o.cfg.Clock.Now().Sub(begun)
	return adminapi.CreateBackup200JSONResponse{Directory: directory, TookMs: int(took.Milliseconds())}, nil
}

// DrainNode serves POST /admin/v1/drain.
func (o adminOps) DrainNode(
	ctx context.Context, _ adminapi.DrainNodeRequestObject,
) (adminapi.DrainNodeResponseObject, error) {
	var d Drain
	if body := callOf(ctx).body; body != nil {
		var err error
		if d, err = parseDrain(body); err != nil {
			return nil, err
		}
	}
	if o.cfg.Drain == nil {
		return nil, errNotSupported
	}
	if err := o.cfg.Drain(ctx, d); err != nil {
		return nil, err
	}
	return adminapi.DrainNode202Response{}, nil
}
