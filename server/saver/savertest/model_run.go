package savertest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// SeedVariable and SeedsVariable are the environment variables that replay one seed, and say how many are run.
const (
	SeedVariable  = "SAVERTEST_SEED"
	SeedsVariable = "SAVERTEST_SEEDS"
)

const (
	modelSeeds = 24
	modelSteps = 250
)

// runModel runs random operations on a store and on the model. Each seed is a subtest; a failure names its variable.
func runModel(t *testing.T, newSubject func(t *testing.T) *Subject) {
	first, n := 1, modelSeeds
	if v := os.Getenv(SeedsVariable); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatalf("%s: %v", SeedsVariable, err)
		}
	}
	if v := os.Getenv(SeedVariable); v != "" {
		var err error
		if first, err = strconv.Atoi(v); err != nil {
			t.Fatalf("%s: %v", SeedVariable, err)
		}
		n = 1
	}
	for seed := first; seed < first+n; seed++ {
		t.Run(fmt.Sprint("Seed", seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("run again with %s=%d", SeedVariable, seed)
				}
			}()
			d := newDriver(newEnv(t, newSubject(t)), uint64(seed))
			for d.step = range modelSteps {
				d.one()
				d.compare(d.anyUser())
				if d.step%25 == 24 {
					for _, u := range d.users {
						d.compare(u)
					}
				}
			}
			d.finish()
		})
	}
}

// driver does the same to a store and to the model, and compares. alice and bob have devices that lie about what they
// handled; cathy's are honest clients, and everything that is owed to them has to reach them.
type driver struct {
	*env
	r     *rand.Rand
	m     *model
	step  int
	users []push.UserID
	seen  map[slotName][]push.Place // every place that was ever told, lost ones too
	ids   []push.MsgID
	tasks []*driverTask
	marks []modelMark
	taken map[push.SlotEpoch]bool

	honest map[push.DeviceID]*client
}

type modelMark struct {
	back func(*testing.T) saver.Store
	m    *model
}

func newDriver(e *env, seed uint64) *driver {
	e.limits.OwnMessages, e.limits.OwnBytes = 12, 1600
	e.limits.CommonMessages, e.limits.CommonBytes = 8, 1<<20
	e.limits.DevicesPerUser = 3
	d := &driver{
		env: e, r: rand.New(rand.NewPCG(seed, 0)), m: newModel(e.limits), users: []push.UserID{alice, bob, cathy},
		seen: make(map[slotName][]push.Place), taken: make(map[push.SlotEpoch]bool),
		honest: map[push.DeviceID]*client{phone: newClient(), laptop: newClient()},
	}
	d.sync()
	return d
}

// sync tells the model the time and the store's lineage.
func (d *driver) sync() { d.m.now, d.m.lineage = d.s.Clock.Milli(), d.lineage() }

func (d *driver) anyUser() push.UserID { return d.users[d.r.IntN(len(d.users))] }
func (d *driver) liar() push.UserID    { return d.users[d.r.IntN(2)] }
func (d *driver) anyDevice() push.DeviceID {
	return []push.DeviceID{phone, laptop, tablet, "tv"}[d.r.IntN(4)]
}

// one does one random operation.
func (d *driver) one() {
	ops := []struct {
		weight int
		do     func()
	}{
		{30, d.publishOne}, {6, d.publishAll}, {6, d.recallOne}, {12, d.openOne}, {12, d.ackOne}, {2, d.deleteOne},
		{18, d.honestOne}, {8, d.advance}, {3, d.sweep}, {1, d.lose}, {4, d.markOne}, {3, d.fallBack}, {2, d.reopen},
		{14, d.batchOne},
	}
	total := 0
	for _, o := range ops {
		total += o.weight
	}
	n := d.r.IntN(total)
	for _, o := range ops {
		if n -= o.weight; n < 0 {
			o.do()
			return
		}
	}
}

func (d *driver) advance() {
	d.s.Clock.Advance([]time.Duration{time.Millisecond, time.Second, time.Minute, 2 * time.Hour}[d.r.IntN(4)])
	d.sync()
}

var modelFilters = []*push.Filter{nil, nil, {Devices: []push.DeviceID{phone}}, {Classes: []string{"web"}}, {Tags: having("vip")}}

// fill makes a publication random.
func (d *driver) fill(p *saver.Publication) {
	p.TTL = []time.Duration{time.Second, time.Minute, 3 * time.Hour, week}[d.r.IntN(4)]
	if d.r.IntN(3) == 0 {
		p.Message.CollapseKey = []string{"k1", "k2"}[d.r.IntN(2)]
	}
	if d.r.IntN(4) == 0 {
		p.Key = saver.IdempotencyKey(fmt.Sprint("key", d.r.IntN(5)))
		p.Digest = saver.Digest{byte(d.r.IntN(3))}
	}
	if d.r.IntN(8) == 0 {
		p.Message.Headers = []push.Header{{Name: "x", Value: string(make([]byte, d.r.IntN(700)))}}
	}
}

func (d *driver) publishOne() {
	d.lastID++ // ids are not dense
	var p *saver.Publication
	label := fmt.Sprint("m", d.step)
	for _, i := range d.r.Perm(len(d.users))[:1+d.r.IntN(len(d.users))] {
		if p == nil {
			p = d.to(label)
		}
		p.Own = append(p.Own, saver.Target{User: d.users[i], Filter: modelFilters[d.r.IntN(len(modelFilters))]})
	}
	d.fill(p)
	var slots []slotName
	var filters []*push.Filter
	for _, t := range p.Own {
		slots, filters = append(slots, nameOf(t.User, push.Own)), append(filters, t.Filter)
	}
	d.published(p, slots, filters)
}

func (d *driver) publishAll() {
	p := d.everyone(fmt.Sprint("all", d.step))
	p.Filter = modelFilters[d.r.IntN(len(modelFilters))]
	d.fill(p)
	var slots []slotName
	var filters []*push.Filter
	for i := range Shards {
		slots, filters = append(slots, slotName{shard: push.Shard(i)}), append(filters, p.Filter)
	}
	d.published(p, slots, filters)
}

// published publishes and compares the answer.
func (d *driver) published(p *saver.Publication, slots []slotName, filters []*push.Filter) {
	r := d.try(p)
	if k, ok := d.m.keys[p.Key]; ok && p.Key != "" && d.m.now < k.until {
		if k.digest != p.Digest {
			d.wantKind("a key that came again", r.Err, push.KindKeyReused)
			return
		}
		d.wantRepeat(r, &k.m)
		return
	}
	if r.Err != nil || r.Repeated {
		d.Fatalf("step %d: Publish: %+v", d.step, r)
	}
	msg := *p.Message
	msg.Created, msg.Expires = d.m.now, d.m.now.Add(p.TTL)
	if p.Key != "" {
		d.m.keys[p.Key] = modelKey{p.Digest, msg, d.m.now.Add(d.limits.KeyTTL)}
	}
	d.ids = append(d.ids, msg.ID)
	got := r.Own
	if p.Everyone {
		got = r.Common
	}
	d.placed("Publish", got, d.m.publish(msg, slots, filters), slots)
}

// placed compares places, and learns the epochs of new slots.
func (d *driver) placed(what string, got []saver.Placed, want []push.Place, slots []slotName) {
	d.Helper()
	if len(got) != len(want) {
		d.Fatalf("step %d: %s: %d places, want %d", d.step, what, len(got), len(want))
	}
	for i, n := range slots {
		want[i].Epoch = d.learn(n, got[i].Place.Epoch)
		if got[i].Place != want[i] {
			d.Fatalf("step %d: %s: place %+v, want %+v", d.step, what, got[i].Place, want[i])
		}
		d.saw(n, want[i])
	}
}

// learn returns the epoch of a slot: the one that the store chose if it is new, which no slot had before.
func (d *driver) learn(n slotName, chosen push.SlotEpoch) push.SlotEpoch {
	d.Helper()
	s, ok := d.m.slots[n]
	if ok && s.state.Epoch == 0 {
		if chosen == 0 || chosen >= 1<<63 || d.taken[chosen] {
			d.Fatalf("step %d: a new slot has epoch %d", d.step, chosen)
		}
		d.taken[chosen] = true
		s.state.Epoch = chosen
		d.m.slots[n] = s
	}
	return s.state.Epoch
}

func (d *driver) saw(n slotName, p push.Place) { d.seen[n] = append(d.seen[n], p) }

// anyPlace returns a place that a client might show: none, one told earlier, or one moved a little.
func (d *driver) anyPlace(n slotName) push.Place {
	ps := d.seen[n]
	if len(ps) == 0 || d.r.IntN(6) == 0 {
		return push.Place{}
	}
	p := ps[len(ps)-1-min(d.r.IntN(len(ps)), d.r.IntN(len(ps)))]
	switch d.r.IntN(8) {
	case 0:
		p.Pos -= push.Position(d.r.IntN(4))
	case 1:
		p.Pos += push.Position(d.r.IntN(4))
	case 2:
		p.Epoch++
	}
	return p
}

func (d *driver) recallOne() {
	if len(d.ids) == 0 {
		return
	}
	id := d.ids[len(d.ids)-1-min(d.r.IntN(len(d.ids)), d.r.IntN(len(d.ids)))]
	rec, ok := d.m.records[id]
	if ok && rec.m.Expires <= d.m.now && d.m.now < rec.m.Expires.Add(time.Hour) {
		return // may be on record or not
	}
	want, first, ok := d.m.recall(id)
	got, err := d.s.Store.Recall(d.ctx, d.recalling(id))
	if !ok {
		d.wantKind("recall", err, push.KindNotFound)
		return
	}
	if err != nil || got.First != first {
		d.Fatalf("step %d: Recall: first %v, %v; want %v", d.step, got.First, err, first)
	}
	if first {
		d.placed("Recall", append(got.Own, got.Common...), want, rec.slots)
	}
}

func (d *driver) openOne() {
	u, dv := d.liar(), d.anyDevice()
	var presented *push.Cursor
	if d.r.IntN(3) > 0 {
		presented = &push.Cursor{d.anyPlace(nameOf(u, push.Own)), d.anyPlace(nameOf(u, push.Common))}
	}
	d.opened(u, dv, presented)
}

func (d *driver) opened(u push.UserID, dv push.DeviceID, presented *push.Cursor) (saver.Opened, bool) {
	online := []push.DeviceID{phone, laptop, tablet, "tv"}[:d.r.IntN(5)]
	d.s.Locator.SetOnline(shop, u, online...)
	o := d.opening(u, dv)
	o.Presented = presented
	got, err := d.s.Store.Open(d.ctx, o)
	starts, forgotten, isNew, ok := d.m.open(u, dv, presented, online)
	if !ok {
		d.wantKind("Open", err, push.KindLimited)
		return got, false
	}
	if err != nil || got.New != isNew || !slices.Equal(got.Forgotten, forgotten) {
		d.Fatalf("step %d: Open: %+v, %v; want new %v, forgotten %v", d.step, got, err, isNew, forgotten)
	}
	for k, st := range starts {
		n := nameOf(u, push.SlotKind(k))
		if st.at.Epoch == 0 { // made by this call, or by one that was refused
			st.at.Epoch = d.learn(n, got.Starts[k].At.Epoch)
			v := slices.IndexFunc(d.m.devices[u], func(v modelDevice) bool { return v.id == dv })
			if isNew {
				ds := slices.Clone(d.m.devices[u])
				ds[v].cursors[k].Epoch = st.at.Epoch
				d.m.devices[u] = ds
			}
		}
		s := d.m.slots[n].state
		want := saver.Start{At: st.at, How: st.how, Head: s.Head, Floor: s.Floor, Stored: d.m.stored(u, dv)[k]}
		if got.Starts[k] != want {
			d.Fatalf("step %d: Open: slot %d starts %+v, want %+v", d.step, k, got.Starts[k], want)
		}
		d.saw(n, st.at)
	}
	return got, true
}

func (d *driver) ackOne() {
	u, dv := d.liar(), d.anyDevice()
	places := push.Cursor{d.anyPlace(nameOf(u, push.Own)), d.anyPlace(nameOf(u, push.Common))}
	d.acked(u, dv, places)
}

func (d *driver) acked(u push.UserID, dv push.DeviceID, places push.Cursor) {
	want := saver.Moved{Done: true, From: d.m.stored(u, dv)}
	a := saver.Ack{UserRef: ref(u), Device: dv, Places: places, Moved: &saver.Moved{}}
	d.ack(a)
	d.m.ack(u, dv, places)
	want.To = d.m.stored(u, dv)
	if *a.Moved != want {
		d.Fatalf("step %d: Ack of %s's %s at %+v moved %+v, want %+v", d.step, u, dv, places, *a.Moved, want)
	}
}

func (d *driver) deleteOne() {
	u, dv := d.liar(), d.anyDevice()
	got, err := d.s.Store.DeleteDevice(d.ctx, ref(u), dv)
	if want := d.m.deleteDevice(u, dv); err != nil || got != want {
		d.Fatalf("step %d: DeleteDevice: %v, %v; want %v", d.step, got, err, want)
	}
}

func (d *driver) lose() {
	n := nameOf(d.anyUser(), push.SlotKind(d.r.IntN(2)))
	u := n.user
	if u == "" {
		u = d.users[slices.IndexFunc(d.users, func(u push.UserID) bool { return nameOf(u, push.Common) == n })]
	}
	if _, ok := d.m.slots[n]; ok {
		d.s.LoseSlot(d.T, ref(u), n.kind())
		delete(d.m.slots, n)
	}
}

func (d *driver) markOne() {
	if d.s.Mark != nil {
		for _, u := range d.users { // so that no epoch is unknown to the model
			d.compare(u)
		}
		d.marks = append(d.marks, modelMark{d.s.Mark(d.T), d.m.clone()})
	}
}

func (d *driver) fallBack() {
	if len(d.marks) > 0 {
		mk := d.marks[len(d.marks)-1-min(d.r.IntN(len(d.marks)), d.r.IntN(len(d.marks)))]
		d.s.Store = mk.back(d.T)
		d.m = mk.m.clone()
		d.sync()
	}
}

func (d *driver) reopen() {
	if d.s.Reopen != nil {
		d.s.Store = d.s.Reopen(d.T)
		d.sync()
	}
}

// compare compares everything that the store tells of a user with the model.
func (d *driver) compare(u push.UserID) {
	d.Helper()
	got := d.user(u)
	var devices []push.DeviceID
	for _, v := range d.m.devices[u] {
		devices = append(devices, v.id)
	}
	d.wantDevices(u, devices...)
	for k := range push.SlotKind(2) {
		n := nameOf(u, k)
		if s, ok := d.m.slots[n]; ok && s.state.Epoch == 0 {
			d.learn(n, got.Slots[k].Epoch)
		}
		s, ok := d.m.slots[n]
		if !ok {
			s.state = push.SlotState{}
		}
		if !reflect.DeepEqual(got.Slots[k], s.state) {
			d.Fatalf("step %d: %s: the %s slot is %+v, want %+v", d.step, u, k, got.Slots[k], s.state)
		}
		for i, v := range d.m.devices[u] {
			has, _ := s.state.Resolve(got.Devices[i].Cursors[k])
			if want, _ := s.state.Resolve(v.cursors[k]); has != want {
				d.Fatalf("step %d: %s: the %s cursor of %s stands at %+v, want %+v", d.step, u, k, v.id, has, want)
			}
		}
		d.compareRead(u, n)
	}
}

func (d *driver) compareRead(u push.UserID, n slotName) {
	d.Helper()
	r := readOf(u, n.kind(), d.anyPlace(n))
	if d.r.IntN(2) == 0 {
		r.MaxEntries, r.MaxBytes = 1+d.r.IntN(4), 1+d.r.IntN(500)
	}
	s := d.m.slots[n].state
	at, _ := s.Resolve(r.From)
	want := d.m.live(n, at.Pos)
	got := d.readAll(r)
	if len(got) != len(want) {
		d.Fatalf("step %d: %s: %q in the %s slot after %+v, want %+v", d.step, u, d.show(got), n.kind(), at, want)
	}
	for i, x := range got {
		w := want[i]
		if x.Pos != w.pos || x.ID != w.id || x.Kind != w.kind || x.Expires != w.expires || !x.Filter.Equal(w.filter) ||
			(x.Message == nil) != (w.kind == saver.EntryRecall) || x.Lost {
			d.Fatalf("step %d: %s: entry %+v, want %+v", d.step, u, x, w)
		}
	}
}
