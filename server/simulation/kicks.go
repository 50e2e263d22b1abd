package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"carillon/server/client"
	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/wire"
)

// A product's server ends sessions of a user, or of one device, and may refuse their tokens for a while. Who was sent away by
// that stays away until the script has a person open the application again, or until everything heals.

// whose are the sessions that a kick or a revocation names.
type whose uint8

const (
	ofUser whose = iota
	ofDevice
	ofToken // by the token's id, of which its device has but one
)

// kick has a sender end the sessions of a device, or of all of its user.
func (w *world) kick(d *device, revoke bool) {
	of := ofDevice
	if w.script.IntN(2) == 0 {
		of = ofUser
	}
	w.kickWhose(d, of, revoke)
}

// revokeToken has a sender revoke the token of a device: no other session may end.
func (w *world) revokeToken(d *device) { w.kickWhose(d, ofToken, true) }

func (w *world) kickWhose(d *device, of whose, revoke bool) {
	all := of == ofUser
	for _, i := range w.script.Perm(len(d.p.senders)) {
		s := d.p.senders[i]
		if s.busy.Load() > 0 {
			continue
		}
		d.shunned = true
		if all {
			d.p.shunned[d.id.User] = true
		}
		w.trace("%v is kicked, all of its user: %v, revoked: %v, by its token: %v", d.id, all, revoke, of == ofToken)
		s.kick(d, of, revoke)
		return
	}
}

// kick asks until there is an answer. From then on nothing more may come to the sessions that were there when it asked.
func (s *sender) kick(d *device, of whose, revoke bool) {
	id, all := d.id, of == ofUser
	named, query := map[string]string{}, ""
	switch of {
	case ofUser:
	case ofDevice:
		named["device"] = id.Device
		query = "?device=" + url.QueryEscape(id.Device)
	case ofToken:
		named["token_id"] = d.tokenID()
		query = "?token_id=" + url.QueryEscape(d.tokenID())
	}
	path := "/v1/users/" + url.PathEscape(id.User) + "/kick"
	body, err := json.Marshal(named)
	if err != nil {
		panic(err) // strings
	}
	if revoke {
		path = "/v1/users/" + url.PathEscape(id.User) + "/revoke"
	}
	s.work(func() {
		for n := 0; n < 12 && !s.kickOnce(path, body, id, all); n++ {
			wait(s.lane, s.lane.between(50*time.Millisecond, time.Second))
		}
		if !revoke {
			return
		}
		wait(s.lane, s.lane.between(time.Second, 6*time.Second))
		for {
			if a, err := s.w.call(s.lane, s.p, http.MethodDelete, path+query, "", nil); err == nil && a.status < 500 {
				return
			}
			wait(s.lane, s.lane.between(50*time.Millisecond, time.Second))
		}
	})
}

// kickOnce reports whether it was answered.
func (s *sender) kickOnce(path string, body []byte, id history.Device, all bool) bool {
	there, _ := notifier{w: s.w}.Sessions(context.Background(), s.p.id, push.UserID(id.User))
	a, err := s.w.call(s.lane, s.p, http.MethodPost, path, "", body)
	if err != nil || a.status >= 500 {
		return false
	}
	if a.status != http.StatusOK {
		s.w.fault("%s kicks: status %d, %s", s.name, a.status, a.body.Bytes())
		return true
	}
	for _, x := range there {
		if all || x.Device == push.DeviceID(id.Device) {
			s.w.note(history.Record{
				Kind: history.Off, Session: uint64(x.Epoch),
				Device: history.Device{Product: id.Product, User: id.User, Device: string(x.Device)},
			})
		}
	}
	return true
}

// isShunned reports whether the client ended since somebody kicked it.
func (d *device) isShunned(err error) bool {
	var c *client.ClosedError
	return (d.shunned || d.p.shunned[d.id.User]) && errors.As(err, &c) && (c.Code == wire.CloseKicked || c.Code == wire.CloseRevoked)
}

// reopen is a person who opens the application of a device that was sent away.
func (w *world) reopen() {
	for _, i := range w.script.Perm(len(w.devices)) {
		if d := w.devices[i]; d.outcast {
			w.trace("%v is opened again", d.id)
			d.start()
			return
		}
	}
}
