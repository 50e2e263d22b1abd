package redis

import (
	"context"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// tries is how often a change is begun again that another node was faster than.
const tries = 20

// Insert registers a session. KindConflict: "lease_lost", "replaced" or "session_limit", see the contract.
func (r *Register) Insert(ctx context.Context, s register.Session, limits []push.SessionLimit) (register.Inserted, error) {
	var none register.Inserted
	if err := r.usable(ctx, "insert"); err != nil {
		return none, err
	}
	if err := check(&s.Key); err != nil {
		return none, &push.Error{Kind: push.KindInvalid, Code: "bad_session", Detail: "register: insert: " + err.Error()}
	}
	t := r.tenure(s.Room, s.Boot)
	if t == nil {
		return none, leaseLost("insert")
	}
	u, err := r.userOf(ctx, s.Product, s.User)
	if err != nil {
		return none, err
	}
	turn := r.turnOf(s.Product, s.User)
	if err := turn.lock(ctx); err != nil {
		return none, err
	}
	defer turn.unlock()
	for try := range tries {
		if err := redisdb.Pause(ctx, try); err != nil {
			return none, unavailable("wait", err)
		}
		in := insertion{Register: r, user: u, t: t, s: s, limits: limits}
		if done, err := in.try(ctx); err != nil || done {
			return in.inserted, err
		}
	}
	return none, unavailable("insert", errBusy)
}

func check(k *register.Key) error {
	if err := k.Product.Check(); err != nil {
		return err
	}
	if err := k.User.Check(); err != nil {
		return err
	}
	return k.Device.Check()
}

// user is where the sessions of a user lie: a field of their shard's hash.
type user struct {
	product push.ProductID
	user    push.UserID
	ref     shardRef
	tag     redisdb.Tag
	key     string
}

func (r *Register) userOf(ctx context.Context, p push.ProductID, u push.UserID) (user, error) {
	n, err := r.shardsOf(ctx, p)
	if err != nil {
		return user{}, err
	}
	s := push.ShardOf(u, n)
	tag := redisdb.ShardTag(p, s)
	return user{p, u, shardRef{p, s}, tag, tag.SessionsKey()}, nil
}

// reading is what was read of a user.
type reading struct {
	sessions []stored
	value    any // what was read, for the condition that it is still so
	lineage  push.Lineage
}

// readUser reads the sessions of a user.
func (r *Register) readUser(ctx context.Context, u *user, op string) (got reading, err error) {
	read := &redisdb.Read{Tag: u.tag, Do: []redisdb.Command{{Name: "HGET", Key: u.key, Args: []any{string(u.user)}}}}
	r.db.Read(ctx, read)
	if read.Err != nil {
		return got, failed(op, read.Err)
	}
	got.value, got.lineage = read.Replies[0], read.Lineage
	value, _ := got.value.(string)
	err = readSessions(u.product, u.user, u.ref.shard, value, func(s *stored) { got.sessions = append(got.sessions, *s) })
	if err != nil {
		return got, damaged(op, err)
	}
	return got, nil
}

// insertion is one try to insert a session: read, decide, write if nothing changed.
type insertion struct {
	*Register
	user
	t      *tenure
	s      register.Session
	limits []push.SessionLimit

	reading
	view *view
	now  push.MilliTime

	own      *stored           // the session of the same device
	row      push.SessionEpoch // of the newcomer
	gone     []stored          // those that the limits send off
	inserted register.Inserted
}

// try reports whether it was done; if not somebody else was faster.
func (in *insertion) try(ctx context.Context) (bool, error) {
	var err error
	if in.reading, err = in.readUser(ctx, &in.user, "insert"); err != nil {
		return false, err
	}
	before := in.asked.Load() // whatever is read of the table from here on knows all lives in the sessions
	if in.view, err = in.present(ctx); err != nil {
		return false, err
	}
	if in.view, err = in.known(ctx, in.view, before, in.sessions); err != nil {
		return false, err
	}
	err = in.decide()
	if err != nil && len(in.sessions) > 0 && in.view.number <= before {
		// Nobody is turned away for the sake of a session that an old view takes for alive.
		if in.view, err = in.look(ctx, before); err != nil {
			return false, err
		}
		err = in.decide()
	}
	if err != nil {
		return false, err
	}
	return in.write(ctx)
}

// decide says who has to go, by the rules that all registers share.
func (in *insertion) decide() error {
	in.now = in.view.now(in.Register)
	in.own, in.gone = nil, nil
	if !in.view.counts(in.t.at, in.now) {
		return leaseLost("insert")
	}
	var others []register.Seat
	var seated []*stored
	var own *register.Seat
	for i := range in.sessions {
		s := &in.sessions[i]
		in.epochs.See(s.Epoch)
		if s.Device == in.s.Device {
			in.own = s
		}
		if !in.view.counts(s.at, in.now) || planted.Is(planted.PlacesByRoom) && s.Room != in.s.Room && s.Device != in.s.Device {
			continue
		}
		seat := register.Seat{Device: s.Device, Platform: s.Platform, Epoch: s.Epoch, Row: s.Row}
		if s.Device == in.s.Device {
			own = &seat
			continue
		}
		others, seated = append(others, seat), append(seated, s)
	}
	newcomer := register.Seat{Device: in.s.Device, Platform: in.s.Platform, Epoch: in.s.Epoch, Row: in.s.Row}
	var err error
	if in.row, err = register.Succeed(newcomer, own); err != nil {
		return err
	}
	if err := register.Admit(newcomer, own, others, in.limits); err != nil {
		return err
	}
	for i := range others {
		if others[i].Goes {
			in.gone = append(in.gone, *seated[i])
		}
	}
	return nil
}

// write does what was decided, if the sessions are still those that were read.
func (in *insertion) write(ctx context.Context) (bool, error) {
	s := in.s
	if s.Epoch == 0 {
		s.Epoch = in.epochs.Next(s.Row, in.now)
	} else {
		in.epochs.See(s.Epoch)
	}
	s.Row = in.row
	if s.Row >= s.Epoch {
		s.Row = 0
	}
	w := newWrite(ctx, in.Register, &in.user, in.view, in.now, &in.reading)
	if in.own != nil {
		w.takesOut(in.own)
		if in.own.at != in.t.at || in.own.Epoch != s.Epoch { // the same session once more replaces nobody
			w.dismisses(in.own, &s, in.t.at)
		}
	}
	for i := range in.gone {
		w.takesOut(&in.gone[i])
		w.dismisses(&in.gone[i], &s, in.t.at)
	}
	for i := range in.sessions {
		if other := &in.sessions[i]; !w.isOut(other) && in.view.isDead(other.at) {
			w.takesOut(other)
		}
	}
	w.puts(&s, in.t.at)
	if done, err := w.run("insert"); err != nil || !done {
		return false, err
	}
	in.inserted.Session = s
	for _, d := range w.dismissed {
		if d.counted {
			in.inserted.Replaced = append(in.inserted.Replaced, d.was)
		}
	}
	return true, nil
}
