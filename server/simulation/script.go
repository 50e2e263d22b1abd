package simulation

import (
	"fmt"
	"time"

	"carillon/server/history"
)

// on says on which store an action makes sense.
type on uint8

const (
	onBoth on = iota
	onMemory
	onPebble
)

// action is one thing that the script may do at a step.
type action struct {
	name   string
	weight int
	always bool // in every world; the others in some
	on     on
	moves  bool // devices, or their connections
	do     func(w *world)

	later bool // chosen after all others and apart, so that a world without it is what it was before it was thought of
	tags  bool // in worlds with tags
	tasks bool // in worlds with tasks, all of them
}

// actions are all that can happen, beside what frames and timers bring about.
func actions() []action {
	return []action{
		{name: "publish", weight: 60, always: true, do: func(w *world) { w.withSender(func(s *sender) { s.send(s.compose()) }) }},
		{name: "burst", weight: 4, always: true, do: func(w *world) { w.withSender(func(s *sender) { s.burst(s.compose(), 2+w.script.IntN(5)) }) }},
		{name: "batch", weight: 4, always: true, do: func(w *world) { w.withSender(func(s *sender) { s.batch(2 + w.script.IntN(6)) }) }},
		{name: "repeat", weight: 5, always: true, do: func(w *world) { w.withSender(func(s *sender) { s.repeat() }) }},
		{name: "flood", weight: 4, do: func(w *world) { w.withSender((*sender).flood) }},
		{name: "recall", weight: 3, do: func(w *world) { w.withSender(func(s *sender) { s.recall() }) }},

		{name: "leave", weight: 4, always: true, moves: true, do: func(w *world) { w.withDevice((*world).leave) }},
		{name: "crash", weight: 4, always: true, moves: true, do: func(w *world) { w.withDevice((*world).crash) }},
		{name: "twin", weight: 3, moves: true, do: func(w *world) { w.withDevice((*world).twin) }},
		{name: "storm", weight: 1, moves: true, do: func(w *world) { w.withDevice((*world).storm) }},
		{name: "lie", weight: 3, moves: true, do: (*world).lie},
		{name: "kick", weight: 2, moves: true, do: func(w *world) { w.withDevice(func(w *world, d *device) { w.kick(d, false) }) }},
		{name: "revoke", weight: 1, moves: true, do: func(w *world) { w.withDevice(func(w *world, d *device) { w.kick(d, true) }) }},
		{name: "reopen", weight: 6, always: true, moves: true, do: (*world).reopen},
		{name: "newcomer", weight: 1, moves: true, do: (*world).newcomer},

		{name: "cut", weight: 6, always: true, moves: true, do: func(w *world) { w.withDevice((*world).cutOff) }},
		{name: "other network", weight: 3, always: true, moves: true, do: func(w *world) { w.withDevice((*world).moveOn) }},
		{name: "half-open", weight: 3, moves: true, do: func(w *world) { w.withDevice((*world).halfOpen) }},
		{name: "freeze", weight: 4, moves: true, do: func(w *world) { w.withDevice((*world).freeze) }},
		{name: "out of reach", weight: 2, moves: true, do: func(w *world) { w.withDevice((*world).outOfReach) }},

		{name: "kill room", weight: 2, on: onMemory, moves: true, do: (*world).roomDies},
		{name: "drain room", weight: 2, moves: true, do: (*world).roomDrains},
		{name: "kill center", weight: 1, on: onMemory, do: (*world).centerDies},
		{name: "no register", weight: 2, do: (*world).noRegister},
		{name: "weather", weight: 3, do: (*world).changeWeather},
		{name: "jump", weight: 1, do: (*world).jump},

		{name: "save", weight: 8, on: onMemory, do: (*world).save},
		{name: "fall back", weight: 2, on: onMemory, do: (*world).fallBack},
		{name: "lose slot", weight: 1, on: onMemory, do: (*world).loseSlot},

		{name: "disk stalls", weight: 6, on: onPebble, do: (*world).diskStalls},
		{name: "disk fails", weight: 1, on: onPebble, do: (*world).diskFails},
		{name: "power loss", weight: 2, always: true, on: onPebble, do: (*world).powerLoss},
		{name: "kill node", weight: 1, always: true, on: onPebble, do: (*world).nodeDies},

		{name: "set tags", weight: 6, do: func(w *world) { w.withDevice((*world).setTags) }, later: true, tags: true},
		{name: "join", weight: 6, do: func(w *world) { w.withDevice((*world).join) }, later: true, tags: true},
		{name: "make a task", weight: 8, do: func(w *world) { w.withOperator((*operator).make) }, later: true, tasks: true},
		{name: "move a task", weight: 16, do: func(w *world) { w.withOperator((*operator).move) }, later: true, tasks: true},
		{name: "switch tasks", weight: 2, do: func(w *world) { w.withOperator((*operator).turn) }, later: true, tasks: true},
		{name: "kill helper", weight: 3, on: onMemory, do: (*world).killHelper, later: true, tasks: true},
		{name: "freeze helper", weight: 4, on: onMemory, do: (*world).freezeHelper, later: true, tasks: true},
		{name: "revoke token", weight: 1, moves: true, do: func(w *world) { w.withDevice((*world).revokeToken) }, later: true},
	}
}

// populate has every device of the beginning connect.
func (w *world) populate() {
	l := w.sched.lane("population")
	for _, p := range w.products {
		for i := range w.opt.users {
			for j := range 1 + l.IntN(3) {
				d := w.addDevice(p, userNames[i], []string{"phone", "web", "tablet"}[j], false)
				d.lane.after(d.lane.between(0, time.Second), d.start)
			}
		}
	}
}

// step does one thing, and has the next come.
func (w *world) step() {
	if w.healed {
		return
	}
	all, sum := actions(), 0
	for _, a := range all {
		sum += w.opt.weights[a.name]
	}
	n := w.script.IntN(sum)
	for _, a := range all {
		if n -= w.opt.weights[a.name]; n < 0 {
			if w.taken != nil {
				w.taken[a.name]++
			}
			a.do(w)
			break
		}
	}
	w.countPlaces()
	w.script.after(w.script.between(0, w.opt.pace), w.step)
}

// withSender gives f a sender that has nothing to do, if there is one.
func (w *world) withSender(f func(*sender)) {
	p := w.products[w.script.IntN(len(w.products))]
	for _, i := range w.script.Perm(len(p.senders)) {
		if s := p.senders[i]; s.busy.Load() == 0 {
			f(s)
			return
		}
	}
}

// withDevice gives f an honest device.
func (w *world) withDevice(f func(*world, *device)) {
	for range 8 {
		if d := w.devices[w.script.IntN(len(w.devices))]; !d.liar {
			f(w, d)
			return
		}
	}
}

// ---- devices -----------------------------------------------------------------------------------------------------

func (w *world) leave(d *device) {
	if d.life != nil {
		w.trace("%v leaves", d.id)
		d.away = w.script.between(0, 6*time.Second)
		d.quit()
	}
}

func (w *world) crash(d *device) {
	if d.life == nil {
		return
	}
	d.away = w.script.between(0, 4*time.Second)
	if w.script.chance(3) {
		d.forget = 1 + w.script.IntN(2)
	}
	w.trace("%v crashes, forgets %d", d.id, d.forget)
	d.crash()
}

// isKnown reports whether the device was online.
func (d *device) isKnown() bool {
	d.storage.mu.Lock()
	defer d.storage.mu.Unlock()
	return d.welcomed
}

func (w *world) twin(d *device) {
	if d.isKnown() {
		w.trace("another process of %v connects", d.id)
		d.connect(lie(w.script.IntN(int(lies))), w.script.between(time.Second, 15*time.Second))
	}
}

func (w *world) storm(d *device) {
	if d.isKnown() {
		w.trace("%v connects many times", d.id)
		for range 3 + w.script.IntN(10) {
			d.connect(honest, w.script.between(500*time.Millisecond, 3*time.Second))
		}
	}
}

// lie has a device that is not owed anything, and shows and acknowledges what is not so, beside the honest ones of a user.
func (w *world) lie() {
	p := w.products[w.script.IntN(len(w.products))]
	user := userNames[w.script.IntN(w.opt.users)]
	d := w.deviceOf(p, user, "liar")
	if d == nil {
		d = w.addDevice(p, user, "liar", true)
	}
	w.trace("%v lies", d.id)
	d.connect(lie(w.script.IntN(int(lies))), w.script.between(time.Second, 10*time.Second))
}

// newcomer is a device, perhaps of a user who had none.
func (w *world) newcomer() {
	p := w.products[w.script.IntN(len(w.products))]
	i := w.script.IntN(w.opt.users)
	name := fmt.Sprintf("new%d", len(w.devices))
	d := w.addDevice(p, userNames[i], name, false)
	w.trace("%v is new", d.id)
	d.start()
}

// ---- the network -------------------------------------------------------------------------------------------------

func (d *device) path() end {
	if d.life == nil {
		return nil
	}
	return d.life.lastConn()
}

func (w *world) cutOff(d *device) {
	if c := d.path(); c != nil {
		w.trace("%v is cut off", d.id)
		c.darken(w.script.between(leastDelay, 3*time.Second), w.script.between(leastDelay, 3*time.Second))
	}
}

// moveOn has a device change its network: it knows at once, the server does not, and it comes back over another transport.
func (w *world) moveOn(d *device) {
	if c := d.path(); c != nil {
		w.trace("%v changes its network", d.id)
		c.darken(-1, 0)
		d.life.turnAway()
	}
}

// halfOpen ends a path of which one side, or neither, is told.
func (w *world) halfOpen(d *device) {
	c := d.path()
	if c == nil {
		return
	}
	server, client := time.Duration(-1), time.Duration(-1)
	switch w.script.IntN(3) {
	case 0:
		server = w.script.between(leastDelay, 2*time.Second)
	case 1:
		client = w.script.between(leastDelay, 2*time.Second)
	}
	w.trace("%v is half open: server %v, device %v", d.id, server, client)
	c.darken(server, client)
}

func (w *world) freeze(d *device) {
	if d.path() != nil {
		w.trace("%v freezes", d.id)
		d.freeze(w.script.between(time.Second, 15*time.Second))
	}
}

func (w *world) outOfReach(d *device) {
	w.trace("%v reaches nobody", d.id)
	d.blocked.Store(true)
	if c := d.path(); c != nil {
		c.darken(-1, w.script.between(leastDelay, time.Second))
	}
	w.script.after(w.script.between(time.Second, 8*time.Second), func() { d.blocked.Store(false) })
}

// ---- processes ---------------------------------------------------------------------------------------------------

// pickRoom returns a room that works and is not asked to stop, nil if chance picks another.
func (w *world) pickRoom() *roomProc {
	r := w.rooms[w.script.IntN(len(w.rooms))]
	if !r.up() || r.busy {
		return nil
	}
	return r
}

func (w *world) roomDies() {
	r := w.pickRoom()
	if r == nil {
		return
	}
	w.trace("%s is killed", r.id)
	w.killRoom(r)
	w.bringBack(r)
}

// bringBack starts a room after a while, if its backend is there.
func (w *world) bringBack(r *roomProc) {
	r.busy = true
	w.script.after(w.script.between(100*time.Millisecond, 4*time.Second), func() {
		r.busy = false
		w.reviveRoom(r)
	})
}

func (w *world) reviveRoom(r *roomProc) {
	if r.running || r.busy || w.back == nil {
		return
	}
	w.trace("%s starts", r.id)
	if err := w.startRoom(r); err != nil {
		w.fault("%s does not start: %v", r.id, err)
	}
}

// roomDrains has a room say goodbye to its clients, and after a while stop and start again.
func (w *world) roomDrains() {
	r := w.pickRoom()
	if r == nil {
		return
	}
	w.trace("%s drains", r.id)
	r.drain()
	boots := w.boots
	w.script.after(w.script.between(500*time.Millisecond, 3*time.Second), func() {
		if !r.running || w.boots != boots {
			return // the node died meanwhile
		}
		r.busy = true
		w.stopRoom(r, func() {
			r.busy = false
			w.bringBack(r)
		})
	})
}

func (w *world) centerDies() {
	if !w.center.alive {
		return
	}
	w.trace("center is killed")
	w.killCenter()
	w.script.after(w.script.between(100*time.Millisecond, 2*time.Second), w.reviveCenter)
}

func (w *world) killCenter() {
	w.center.kill()
}

func (w *world) reviveCenter() {
	if w.center.alive || w.back == nil {
		return
	}
	w.trace("center starts")
	if err := w.startCenter(); err != nil {
		w.fault("center does not start: %v", err)
	}
}

// noRegister cuts a room off from the register: for so long that it may not write, or that its lease ends.
func (w *world) noRegister() {
	if r := w.pickRoom(); r != nil {
		w.unregister(r, w.script.between(time.Second, 16*time.Second))
	}
}

func (w *world) unregister(r *roomProc, d time.Duration) {
	r.outages++
	this := r.outages
	w.trace("%s does not reach the register for %v", r.id, d)
	r.unregistered.Store(true)
	since := w.sched.now()
	w.script.after(d, func() {
		if r.outages == this {
			r.unregistered.Store(false)
		}
		// The room writes nothing while it may be taken for dead.
		w.script.after(3*time.Second, func() { w.note(history.Record{Kind: history.Stall, Since: since}) })
	})
}

// changeWeather makes the store slow or unreliable for a while.
func (w *world) changeWeather() {
	switch w.script.IntN(4) {
	case 0:
		w.weather.slow = w.script.between(5*time.Millisecond, 400*time.Millisecond)
	case 1:
		w.weather.refuse = 2 + w.script.IntN(10)
	case 2:
		w.weather.loseBack = 2 + w.script.IntN(10)
	default:
		w.weather = weather{}
	}
	w.trace("the store: %+v", w.weather)
	w.script.after(w.script.between(time.Second, 6*time.Second), func() { w.weather = weather{} })
}

// jump stops the whole world for a time and lets it go on, as a suspended machine.
func (w *world) jump() {
	d := w.script.between(time.Second, 90*time.Second)
	w.trace("time jumps by %v", d)
	since := w.sched.now()
	time.Sleep(d)
	settle()
	w.jumped = w.sched.now()
	w.script.after(4*time.Second, func() { w.note(history.Record{Kind: history.Stall, Since: since}) })
}
