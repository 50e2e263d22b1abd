package simulation

import (
	"context"

	"carillon/server/catalog"
	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/register"
)

// A product with a session policy has fewer places than its users have devices: whoever connects sends another off, whose
// person has it connect again soon, or is turned away and tries later. When everything heals the policies end, since all
// devices have to be online to get what they are owed.

// bound may give a product a session policy.
func (w *world) bound(p *product, prod *catalog.Product) (err error) {
	if !w.opt.policies {
		return nil
	}
	l := w.sched.lane("policy/" + string(p.id))
	p.places, p.rejects = 1+l.IntN(2), l.chance(3)
	rule := push.SessionRule{Scope: push.PerAccount, Max: p.places}
	if p.rejects {
		rule.OnExcess = push.RejectNew
	}
	prod.Sessions, err = push.NewSessionPolicy(push.SessionRules{Default: "any", Rules: []push.SessionRule{rule}})
	return err
}

// unbound ends the session policies.
func (w *world) unbound() {
	for _, p := range w.products {
		if p.places == 0 {
			continue
		}
		p.places = 0
		ctx := context.Background()
		prod, err := w.catalog.Product(ctx, p.id)
		if err == nil {
			prod.Sessions = nil
			_, err = w.catalog.UpdateProduct(ctx, prod)
		}
		if err != nil {
			w.fault("ending the session policy of %s: %v", p.id, err)
		}
	}
}

// countPlaces looks whether more sessions of a user count than there are places. Deciding and inserting are one step, so
// that is never so, whatever races and whatever fails.
func (w *world) countPlaces() {
	if w.back == nil {
		return
	}
	for _, p := range w.products {
		if p.places == 0 {
			continue
		}
		for _, u := range userNames[:w.opt.users] {
			found, err := w.back.reg.Lookup(context.Background(), p.id, []push.UserID{push.UserID(u)})
			if err != nil {
				w.fault("the register does not answer: %v", err)
				return
			}
			if n := len(found[0]); n > p.places {
				w.fault("%s/%s has %d sessions, there are %d places", p.id, u, n, p.places)
			}
		}
	}
}

// noteOff notes the sessions that had to go for another.
func (w *world) noteOff(in *register.Inserted) {
	for _, s := range in.Replaced {
		w.offs.Store(uint64(s.Epoch), w.sched.now())
		w.note(history.Record{
			Kind: history.Off, Session: uint64(s.Epoch),
			Device: history.Device{Product: string(s.Product), User: string(s.User), Device: string(s.Device)},
		})
	}
}
