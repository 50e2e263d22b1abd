package node

import (
	"context"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

// Notices is where is written down what every room has to know for certain. Implementations are safe for concurrent use. What was
// posted is kept for KeepNotices at least, and at least so that it survives what a message survives.
type Notices interface {
	// Post writes a notice down and returns its number, above 0 and above all before it, and the time by the store's clock.
	Post(ctx context.Context, n Notice) (number uint64, now push.MilliTime, err error)
	// Since returns the notices after one, in order, at most limit. lost says that some after that one are gone.
	Since(ctx context.Context, after uint64, limit int) (ns []Numbered, lost bool, err error)
	// Head returns the number of the latest notice, 0 if there was none.
	Head(ctx context.Context) (uint64, error)
}

// KeepNotices is how long notices are kept: a room that was silent for longer ends its sessions.
const KeepNotices = time.Hour

// Notice is one thing that every room has to know. Exactly one part is set; one that a later version knows has none.
type Notice struct {
	Kick  *KickNotice  `json:"kick,omitempty"`
	Retag *RetagNotice `json:"retag,omitempty"`
}

// Numbered is a notice as it is found.
type Numbered struct {
	Notice
	Number uint64
}

// KickNotice ends sessions of a user; RetagNotice has the sessions of users look at their tags again.
type (
	KickNotice struct {
		Product push.ProductID `json:"product"`
		User    push.UserID    `json:"user"`
		Kick    push.Kick      `json:"kick"`
	}
	RetagNotice struct {
		Product push.ProductID `json:"product"`
		Users   []push.UserID  `json:"users"`
	}
)

// certainAfter is when every room has obeyed a notice: one renewed its lease at the latest just before it was posted, and from then on it
// either renews, and obeys, or writes nothing after ZombieAfter.
const certainAfter = register.ZombieAfter + register.RenewEvery

// note writes a notice down where there is a place for it, and returns its number and when every room will have obeyed.
func (n *Node) note(ctx context.Context, what Notice) (uint64, push.MilliTime, error) {
	if n.cfg.Notices == nil {
		return 0, push.Milli(n.cfg.Clock.Now().Add(certainAfter)), nil
	}
	number, at, err := n.cfg.Notices.Post(ctx, what)
	if err != nil {
		return 0, 0, err
	}
	return number, at.Add(certainAfter), nil
}

// Begin notes where the notices stand before the local room takes its first session: those are for sessions that were there before.
func (n *Node) Begin(ctx context.Context) error {
	if n.cfg.Notices == nil || n.cfg.Local == nil {
		return nil
	}
	if err := n.catch(ctx); err != nil {
		return err
	}
	defer n.caughtUp()
	head, err := n.cfg.Notices.Head(ctx)
	if err == nil {
		n.caught = head
	}
	return err
}

// catch waits for the turn to read notices; caughtUp gives it back.
func (n *Node) catch(ctx context.Context) error {
	select {
	case n.catching <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &push.Error{Kind: push.KindUnavailable, Code: "notices_slow", Err: ctx.Err()}
	}
}

func (n *Node) caughtUp() { <-n.catching }

// noticesAtOnce bounds one reading.
const noticesAtOnce = 1000

// Catch has the local room obey all notices since the last call, but for those that came by a call already. The room calls it at each
// renewal of its lease, and does not count as renewed if it fails. lost reports that notices are gone which the room should have
// obeyed: nobody knows whom they named.
func (n *Node) Catch(ctx context.Context) (lost bool, err error) {
	if n.cfg.Notices == nil || n.cfg.Local == nil {
		return false, nil
	}
	if err := n.catch(ctx); err != nil {
		return false, err
	}
	defer n.caughtUp()
	for {
		ns, gone, err := n.cfg.Notices.Since(ctx, n.caught, noticesAtOnce)
		if err != nil {
			return lost, err
		}
		lost = lost || gone
		for i := range ns {
			if err := n.heed(ctx, &ns[i]); err != nil {
				return lost, err
			}
			n.caught = ns[i].Number
			n.forgetObeyed(n.caught)
		}
		if len(ns) < noticesAtOnce {
			return lost, nil
		}
	}
}

// heed has the local room obey one notice, unless it has.
func (n *Node) heed(ctx context.Context, what *Numbered) error {
	n.obeyedMu.Lock()
	was := n.obeyed[what.Number]
	n.obeyedMu.Unlock()
	if was {
		return nil
	}
	var err error
	switch {
	case what.Kick != nil:
		_, err = n.cfg.Local.Kick(ctx, what.Kick.Product, what.Kick.User, what.Kick.Kick)
	case what.Retag != nil:
		err = n.cfg.Local.Retag(ctx, what.Retag.Product, what.Retag.Users)
	}
	if err == nil {
		n.m.notices.Inc()
	}
	return err
}

// kick obeys a kick that came by a call. It is noted as obeyed, so that the notice does not end a session that comes after it: who was
// kicked may come back. Not before it is: a notice that is passed over for a call that then fails is obeyed by nobody.
func (n *Node) kick(ctx context.Context, c *kickCall) (int, error) {
	ended, err := n.cfg.Local.Kick(ctx, c.Product, c.User, c.Kick)
	if err == nil && c.Notice != 0 {
		n.obeyedMu.Lock()
		n.obeyed[c.Notice] = true
		n.obeyedMu.Unlock()
	}
	return ended, err
}

// forgetObeyed forgets what was noted of notices up to one. There are few: those of about a second.
func (n *Node) forgetObeyed(upTo uint64) {
	n.obeyedMu.Lock()
	defer n.obeyedMu.Unlock()
	for number := range n.obeyed {
		if number <= upTo {
			delete(n.obeyed, number)
		}
	}
}
