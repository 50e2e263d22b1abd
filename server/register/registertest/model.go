package registertest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

// model is the contract in its plainest form: every session there is, and every lease.
type model struct {
	now      time.Duration
	lives    map[push.RoomID]*modelLife
	sessions map[register.Key]register.Session
}

type modelLife struct {
	boot   push.BootID
	until  time.Duration
	orders []register.Order
}

func (m *model) live(room push.RoomID, boot push.BootID) *modelLife {
	l := m.lives[room]
	if l == nil || l.boot != boot || m.now >= l.until {
		return nil
	}
	return l
}

// session returns the device's session if it counts.
func (m *model) session(k register.Key) (register.Session, bool) {
	s, ok := m.sessions[k]
	return s, ok && m.live(s.Room, s.Boot) != nil
}

// agreesWithModel does random things to a register and to the model and compares both after each.
func agreesWithModel(t *testing.T, h *harness) {
	for seed := range uint64(12) {
		m := &modelRun{
			harness: h, rng: rand.New(rand.NewPCG(seed, 13)), product: push.ProductID(fmt.Sprint("seed-", seed)),
			model: model{lives: map[push.RoomID]*modelLife{}, sessions: map[register.Key]register.Session{}},
			boots: map[push.RoomID]push.BootID{},
		}
		for step := range 300 {
			what := m.step()
			if diff := m.compare(); diff != "" {
				t.Fatalf("seed %d, step %d, after %s: %s", seed, step, what, diff)
			}
		}
		h.Elapse(register.LeaseTTL + time.Second) // the next seed begins with nobody
	}
}

// modelRun is one walk.
type modelRun struct {
	*harness
	model
	rng     *rand.Rand
	product push.ProductID
	boots   map[push.RoomID]push.BootID // the last boot of each room
	past    []register.Session          // sessions that were inserted at some time
	high    push.SessionEpoch           // the highest epoch so far
}

var (
	modelUsers     = []push.UserID{"alice", "bob", "cathy"}
	modelDevices   = []push.DeviceID{"phone", "tablet", "tv", "web"}
	modelRooms     = []push.RoomID{north, south, "west"}
	modelPlatforms = []push.Platform{push.PlatformOther, push.PlatformWeb, push.PlatformIOS, push.PlatformTV}
)

func pick[T any](r *rand.Rand, s []T) T { return s[r.IntN(len(s))] }

// step does one random thing and says what it was.
func (m *modelRun) step() string {
	room := pick(m.rng, modelRooms)
	boot := m.boots[room]
	switch n := m.rng.IntN(100); {
	case n < 8:
		return m.doJoin(room)
	case n < 11:
		return m.doLeave(room, boot)
	case n < 30:
		return m.doRenew(room, boot)
	case n < 38:
		d := time.Duration(m.rng.IntN(4000)) * time.Millisecond
		m.Elapse(d)
		m.now += d
		return fmt.Sprint("elapse ", d)
	case n < 70:
		s := session(key(m.product, pick(m.rng, modelUsers), pick(m.rng, modelDevices)), room, boot)
		s.Platform = pick(m.rng, modelPlatforms)
		s.Row = m.named(s.Key)
		return m.doInsert(s, m.limits())
	case n < 80 && len(m.past) > 0:
		s := pick(m.rng, m.past)
		s.Boot = m.boots[s.Room] // anew, under the room's present boot
		return m.doInsert(s, m.limits())
	case len(m.past) > 0:
		return m.doRemove(pick(m.rng, m.past))
	}
	return "nothing"
}

func (m *modelRun) doJoin(room push.RoomID) string {
	m.boots[room]++
	boot := m.boots[room] + 1000*push.BootID(m.rng.IntN(2)) // boots are names: they need not rise
	m.boots[room] = boot
	m.join(room, boot)
	m.lives[room] = &modelLife{boot: boot, until: m.now + register.LeaseTTL}
	return fmt.Sprintf("join %s %d", room, boot)
}

func (m *modelRun) doLeave(room push.RoomID, boot push.BootID) string {
	if err := m.Register.Leave(m.ctx, room, boot); err != nil {
		m.t.Fatalf("Leave: %v", err)
	}
	if l := m.lives[room]; l != nil && l.boot == boot {
		delete(m.lives, room)
	}
	return fmt.Sprintf("leave %s %d", room, boot)
}

func (m *modelRun) doRenew(room push.RoomID, boot push.BootID) string {
	what := fmt.Sprintf("renew %s %d", room, boot)
	l := m.live(room, boot)
	if l == nil {
		_, err := m.Register.Renew(m.ctx, room, boot)
		wantError(m.t, what, err, push.KindConflict, "lease_lost")
		return what
	}
	got := m.renew(room, boot)
	if !slices.Equal(got, l.orders) {
		m.t.Fatalf("%s: orders:\n got %+v\nwant %+v", what, got, l.orders)
	}
	l.orders, l.until = nil, m.now+register.LeaseTTL
	return what
}

// limits returns a few limits, or none.
func (m *modelRun) limits() []push.SessionLimit {
	var ls []push.SessionLimit
	for range m.rng.IntN(3) {
		l := push.SessionLimit{Max: 1 + m.rng.IntN(3), Reject: m.rng.IntN(3) == 0, Rule: "any"}
		for _, p := range modelPlatforms {
			if m.rng.IntN(3) > 0 {
				l.Platforms = l.Platforms.Add(p)
			}
		}
		ls = append(ls, l)
	}
	return ls
}

// admit is what limits ask in its plainest form: the newcomer takes its place in the line of all, by age, and as long as a
// limit counts too many in it, one end of that line goes. code says why if that is the newcomer.
func (m *modelRun) admit(s register.Session, limits []push.SessionLimit) (gone []register.Session, code string) {
	var line []register.Session
	own, back := m.session(s.Key)
	for _, other := range m.model.sessions {
		if _, counts := m.session(other.Key); counts && other.User == s.User && other.Device != s.Device {
			line = append(line, other)
		}
	}
	age := func(x register.Session) push.SessionEpoch { return x.Epoch - 1 } // 0 is the youngest of all
	line = append(line, s)
	slices.SortFunc(line, func(a, b register.Session) int { return cmp.Compare(age(a), age(b)) })
	for _, l := range limits {
		if l.Reject && back && l.Platforms.Has(own.Platform) {
			continue
		}
		for {
			var in []int
			for i, x := range line {
				if x == s || l.Platforms.Has(x.Platform) {
					in = append(in, i)
				}
			}
			if len(in) <= l.Max {
				break
			}
			out := in[0]
			if l.Reject {
				out = in[len(in)-1]
			}
			if line[out] == s {
				return nil, map[bool]string{true: "session_limit", false: "replaced"}[l.Reject]
			}
			gone = append(gone, line[out])
			line = slices.Delete(line, out, out+1)
		}
	}
	return gone, ""
}

// named is the session that a client names which comes: mostly one that its device had once, or none.
func (m *modelRun) named(k register.Key) push.SessionEpoch {
	if m.rng.IntN(20) == 0 {
		return push.SessionEpoch(m.rng.Uint64N(2 * uint64(m.high+1)))
	}
	for range m.rng.IntN(30) {
		if len(m.past) == 0 {
			break
		}
		if s := pick(m.rng, m.past); s.Key == k {
			return s.Epoch
		}
	}
	return 0
}

// row is the row of a session in its plainest form, whose device has another one that counts or not; code says why that one stays.
func (m *modelRun) row(s, old register.Session, counts bool) (row push.SessionEpoch, code string) {
	first := cmp.Or(old.Row, old.Epoch)
	switch {
	case s.Epoch != 0 && counts && s.Epoch < first, s.Epoch == 0 && counts && s.Row != 0 && s.Row < first:
		return 0, "replaced"
	case s.Epoch != 0 && counts && s.Epoch < old.Epoch:
		return 0, "continued"
	case s.Epoch == 0 && counts && s.Row != 0 && s.Row <= old.Epoch:
		return first, ""
	}
	return s.Row, ""
}

func (m *modelRun) doInsert(s register.Session, limits []push.SessionLimit) string {
	what := fmt.Sprintf("insert %v on %v in %s %d, epoch %d, row %d, within %+v", s.Key, s.Platform, s.Room, s.Boot, s.Epoch, s.Row, limits)
	in, err := m.Register.Insert(m.ctx, s, limits)
	old, counts := m.session(s.Key)
	gone, refused := m.admit(s, limits)
	row, stays := m.row(s, old, counts)
	switch {
	case m.live(s.Room, s.Boot) == nil:
		wantError(m.t, what, err, push.KindConflict, "lease_lost")
		return what
	case stays != "":
		wantError(m.t, what, err, push.KindConflict, stays)
		return what
	case refused != "":
		wantError(m.t, what, err, push.KindConflict, refused)
		return what
	case err != nil:
		m.t.Fatalf("%s: %v", what, err)
	}
	if s.Epoch == 0 {
		if in.Session.Epoch <= m.high {
			m.t.Fatalf("%s: epoch %d does not stand above %d", what, in.Session.Epoch, m.high)
		}
		s.Epoch = in.Session.Epoch
	}
	if s.Row = row; row >= s.Epoch { // which nobody can have had
		s.Row = 0
	}
	m.high = max(m.high, s.Epoch)
	if in.Session != s {
		m.t.Fatalf("%s: got %+v, want %+v", what, in.Session, s)
	}
	if same := old.Room == s.Room && old.Boot == s.Boot && old.Epoch == s.Epoch; counts && !same {
		gone = append(gone, old)
	}
	byDevice := func(a, b register.Session) int { return cmp.Compare(a.Device, b.Device) }
	slices.SortFunc(gone, byDevice)
	if got := slices.SortedFunc(slices.Values(in.Replaced), byDevice); !slices.Equal(got, gone) {
		m.t.Fatalf("%s: replaced:\n got %+v\nwant %+v", what, got, gone)
	}
	for _, was := range in.Replaced {
		l := m.lives[was.Room]
		l.orders = append(l.orders, register.Order{Key: was.Key, Epoch: was.Epoch, By: s})
		delete(m.model.sessions, was.Key)
	}
	m.model.sessions[s.Key] = s
	m.past = append(m.past, s)
	return what
}

func (m *modelRun) doRemove(s register.Session) string {
	what := fmt.Sprintf("remove %v of %d, epoch %d", s.Key, s.Boot, s.Epoch)
	now, counts := m.session(s.Key)
	want := counts && now.Epoch == s.Epoch && now.Boot == s.Boot
	if got := m.remove(s.Key, s.Epoch, s.Boot); got != want {
		m.t.Fatalf("%s: got %v, want %v", what, got, want)
	}
	if want {
		delete(m.model.sessions, s.Key)
	}
	return what
}

// compare returns what differs between the register and the model, "" if nothing does.
func (m *modelRun) compare() string {
	count := 0
	roomsOf := make([][]push.RoomID, len(modelUsers))
	locator, _ := m.Register.(Locator)
	for i, u := range modelUsers {
		var want []register.Session
		for _, d := range modelDevices {
			if s, ok := m.session(key(m.product, u, d)); ok {
				want = append(want, s)
				if !slices.Contains(roomsOf[i], s.Room) {
					roomsOf[i] = append(roomsOf[i], s.Room)
				}
			}
		}
		count += len(want)
		slices.SortFunc(want, func(a, b register.Session) int { return cmp.Compare(a.Device, b.Device) })
		if got := m.found(m.product, u); !slices.Equal(got, foundAs(want...)) {
			return fmt.Sprintf("sessions of %s:\n got %+v\nwant %+v", u, got, want)
		}
		if locator != nil {
			if got := locator.OnlineDevices(m.product, u); len(got) != len(want) {
				return fmt.Sprintf("devices of %s: got %v, want %d", u, got, len(want))
			}
			got := sorted(locator.RoomsIn(m.product, push.ShardOf(u, 64)))
			if want := sorted(roomsOf[i]); !slices.Equal(got, want) {
				return fmt.Sprintf("rooms in the shard of %s: got %v, want %v", u, got, want)
			}
		}
	}
	if got, err := m.Register.Count(m.ctx, m.product); err != nil || got != count {
		return fmt.Sprintf("count: got %d, %v, want %d", got, err, count)
	}
	if locator != nil {
		for i, got := range locator.RoomsOf(m.product, modelUsers) {
			if want := sorted(roomsOf[i]); !slices.Equal(sorted(got), want) {
				return fmt.Sprintf("rooms of %s: got %v, want %v", modelUsers[i], got, want)
			}
		}
	}
	return ""
}
