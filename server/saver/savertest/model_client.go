package savertest

import (
	"slices"

	"carillon/server/push"
)

// client is one of cathy's devices: what it handled, what it passed over where it was a hole for a good reason, and how
// far it came in the own slot. If the store then falls back to before that reason, the message is there again, below
// the client's cursor: it is not owed any more.
type client struct {
	handled map[push.MsgID]bool
	passed  map[push.MsgID]bool
	cursor  push.Place
}

func newClient() *client {
	return &client{handled: make(map[push.MsgID]bool), passed: make(map[push.MsgID]bool)}
}

// honestOne lets one of cathy's devices connect, read, or acknowledge what it handled.
func (d *driver) honestOne() {
	dv := []push.DeviceID{phone, laptop}[d.r.IntN(2)]
	c := d.honest[dv]
	switch d.r.IntN(3) {
	case 0:
		d.connect(dv)
	case 1:
		if !c.cursor.IsZero() {
			d.receive(c, 1+d.r.IntN(5))
		}
	default:
		d.acked(cathy, dv, push.Cursor{push.Own: c.cursor})
	}
}

func (d *driver) connect(dv push.DeviceID) {
	c := d.honest[dv]
	var presented *push.Cursor
	if d.r.IntN(3) > 0 {
		presented = &push.Cursor{push.Own: c.cursor}
	}
	if o, ok := d.opened(cathy, dv, presented); ok {
		c.cursor = o.Starts[push.Own].At
	}
}

// receive reads once and handles what comes.
func (d *driver) receive(c *client, most int) (more bool) {
	r := readOf(cathy, push.Own, c.cursor)
	r.MaxEntries = most
	t := d.tail(r)
	if t.State.Epoch == 0 {
		return false
	}
	for _, x := range t.Entries {
		c.handled[x.ID] = true
	}
	s := d.m.slots[nameOf(cathy, push.Own)]
	for _, x := range s.history {
		if x.pos > t.Start.Pos && x.pos <= t.Through && !slices.Contains(s.owed, x.id) {
			c.passed[x.id] = true
		}
	}
	c.cursor = push.Place{Epoch: t.State.Epoch, Lineage: t.State.Lineage(), Pos: t.Through}
	return t.More()
}

// finish lets cathy's devices come back and read everything: each has handled, now or before, every message owed to it.
func (d *driver) finish() {
	for _, dv := range []push.DeviceID{laptop, phone} {
		c := d.honest[dv]
		i := slices.IndexFunc(d.m.devices[cathy], func(v modelDevice) bool { return v.id == dv })
		if i < 0 {
			continue // it never came, or that was lost
		}
		missed := d.m.devices[cathy][i].missed
		d.connect(dv)
		for d.receive(c, 3) {
		}
		for _, id := range d.m.slots[nameOf(cathy, push.Own)].owed {
			if !c.handled[id] && !c.passed[id] && !slices.Contains(missed, id) && d.m.records[id].m.Expires > d.m.now {
				d.Errorf("%s was never delivered to cathy's %s", d.labels[id], dv)
			}
		}
	}
}
