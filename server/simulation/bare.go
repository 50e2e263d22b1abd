package simulation

import (
	"context"
	"fmt"
	"time"

	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/wire"
)

// bare is a connection without the client library: a second process of a device, or one that lies.
type bare struct {
	d       *device
	lane    *lane
	session uint64 // owned by its goroutine
	cursor  string // the same: the last the server named
	cancel  context.CancelFunc
	conn    end  // the driver's, once it stands
	done    bool // the driver's
}

// lie is what a device says about its cursor.
type lie uint8

const (
	honest lie = iota
	garbage
	foreign // another device's cursor
	future  // its own, further than there is anything
	lies
)

// connect opens a bare connection that shows a cursor, sends pings, and lasts so long unless the server ends it.
func (d *device) connect(show lie, lasts time.Duration) {
	w := d.w
	d.raws++
	d.twins = max(d.twins, w.sched.now()+lasts+openedLate)
	name := fmt.Sprintf("%s/%s/%s/raw%d", d.id.Product, d.id.User, d.id.Device, d.raws)
	b := &bare{d: d, lane: w.sched.lane("bare/" + name)}
	d.bare = append(d.bare, b)
	cursor := d.tale(show)
	r := w.rooms[b.lane.IntN(len(w.rooms))]
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	started := w.sched.lane("bare/" + name + "/started")
	ended := w.sched.lane("bare/" + name + "/ended")
	d.lane.after(lasts, b.cut)
	go func() {
		defer ended.after(0, func() { b.done = true; cancel() })
		c, _, err := w.dial(ctx, d.caller(b.lane, name, nil), r, -1)
		if err != nil {
			return
		}
		started.after(0, func() {
			b.conn = c
			if b.done {
				c.Cut()
			}
			b.ping()
		})
		_ = c.Write(ctx, &wire.Connect{Version: wire.Version, Token: d.token, Cursor: cursor, Client: "bare"})
		for {
			f, err := c.Read()
			if err != nil {
				c.Cut()
				return
			}
			b.handle(c, f)
		}
	}()
}

// cut ends it. Driver.
func (b *bare) cut() {
	b.cancel()
	if b.conn != nil {
		b.conn.Cut()
	}
	b.done = true
}

func (b *bare) ping() {
	if b.done {
		return
	}
	_ = b.conn.Write(context.Background(), &wire.Ping{})
	b.d.lane.after(3*time.Second, b.ping)
}

func (b *bare) handle(c end, f wire.Frame) {
	d := b.d
	switch f := f.(type) {
	case *wire.Welcome:
		b.session = uint64(f.Session)
		b.cursor = f.Cursor
		if !d.liar {
			d.online(f)
		}
	case *wire.Cursor:
		b.cursor = f.Cursor
	case *wire.Message:
		if !d.liar {
			return // a second process of a device has no application behind it
		}
		d.w.note(history.Record{
			Kind: history.Peek, Device: d.id, ID: f.ID.String(), Body: string(f.Body), Slot: int(f.Slot), Pos: uint64(f.Pos),
		})
		if b.lane.IntN(2) == 0 {
			_ = c.Write(context.Background(), &wire.Ack{Cursor: d.bend(lie(b.lane.IntN(int(lies))), b.cursor)})
		}
	}
}

// tale is the cursor that a device shows. Driver.
func (d *device) tale(show lie) string {
	d.storage.mu.Lock()
	own := d.storage.saved.Cursor
	d.storage.mu.Unlock()
	if own == "" {
		own = string(push.AppendCursor(nil, d.owner(), push.Cursor{{Epoch: 1, Lineage: 1, Pos: 1}, {Epoch: 1, Lineage: 1, Pos: 1}}))
	}
	return d.bend(show, own)
}

func (d *device) owner() push.CursorOwner {
	return push.OwnerOf(d.p.id, push.UserID(d.id.User), push.DeviceID(d.id.Device))
}

// bend makes a lie of a cursor.
func (d *device) bend(show lie, cursor string) string {
	_, c, err := push.ParseCursor(cursor)
	switch {
	case show == garbage || err != nil:
		return "no cursor at all"
	case show == foreign:
		return string(push.AppendCursor(nil, d.owner()+1, c))
	case show == future:
		for k := range c {
			c[k].Pos += 1 << 20
		}
		return string(push.AppendCursor(nil, d.owner(), c))
	}
	return cursor
}
