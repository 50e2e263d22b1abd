package savertest

import (
	"slices"
	"sync"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
)

// Clock is a clock that stands still until it is moved. Methods are safe for concurrent use.
type Clock struct {
	mu      sync.Mutex
	now     time.Time
	timers  []*timer
	tickers []*ticker
}

var _ clock.Clock = (*Clock)(nil)

type timer struct {
	c  *Clock
	at time.Time
	f  func()
	on bool
}

type ticker struct {
	ch     chan time.Time
	at     time.Time
	period time.Duration
}

// NewClock returns a clock at a fixed moment of the year 2026.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

// Now returns the moment that the clock stands at.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Milli returns Now as stores keep it.
func (c *Clock) Milli() push.MilliTime { return push.Milli(c.Now()) }

// Advance moves the clock, back if d is below zero, and starts what is due.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for _, t := range c.timers {
		if t.on && !t.at.After(c.now) {
			t.on = false
			go t.f()
		}
	}
	c.timers = slices.DeleteFunc(c.timers, func(t *timer) bool { return !t.on })
	for _, t := range c.tickers {
		if t.at.After(c.now) {
			continue
		}
		for !t.at.After(c.now) {
			t.at = t.at.Add(t.period)
		}
		select {
		case t.ch <- c.now:
		default:
		}
	}
}

// AfterFunc runs f in its own goroutine once the clock was moved by d.
func (c *Clock) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := &timer{c: c, f: f}
	t.Reset(d)
	return t
}

// NewTicker returns a ticker that ticks when the clock is moved past its period. Stopping it does nothing.
func (c *Clock) NewTicker(d time.Duration) *time.Ticker {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &ticker{ch: make(chan time.Time, 1), at: c.now.Add(d), period: d}
	c.tickers = append(c.tickers, t)
	return &time.Ticker{C: t.ch}
}

// Stop keeps the function from being started.
func (t *timer) Stop() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	was := t.on
	t.on = false
	t.c.timers = slices.DeleteFunc(t.c.timers, func(o *timer) bool { return o == t })
	return was
}

// Reset starts the timer anew.
func (t *timer) Reset(d time.Duration) bool {
	was := t.Stop()
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.on, t.at = true, t.c.now.Add(d)
	t.c.timers = append(t.c.timers, t)
	return was
}

// Locator is a register that says what it was told. Methods are safe for concurrent use.
type Locator struct {
	mu      sync.Mutex
	rooms   map[account][]push.RoomID
	devices map[account][]push.DeviceID
	asked   func()
	told    func(p push.ProductID, u push.UserID, rooms []push.RoomID, devices []push.DeviceID)
}

type account struct {
	product push.ProductID
	user    push.UserID
}

// NewLocator returns a locator that knows of nobody.
func NewLocator() *Locator {
	return &Locator{rooms: make(map[account][]push.RoomID), devices: make(map[account][]push.DeviceID)}
}

// SetRooms says in which rooms a user has sessions.
func (l *Locator) SetRooms(p push.ProductID, u push.UserID, rooms ...push.RoomID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rooms[account{p, u}] = rooms
	l.tellLocked(p, u)
}

// SetOnline says which devices of a user have sessions.
func (l *Locator) SetOnline(p push.ProductID, u push.UserID, devices ...push.DeviceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.devices[account{p, u}] = devices
	l.tellLocked(p, u)
}

// Tell makes the locator call f with all that it was told of a user, whenever that changes: for stores that do not ask a
// locator, since they find who is online where they keep everything else.
func (l *Locator) Tell(f func(p push.ProductID, u push.UserID, rooms []push.RoomID, devices []push.DeviceID)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = f
}

func (l *Locator) tellLocked(p push.ProductID, u push.UserID) {
	if a := (account{p, u}); l.told != nil {
		l.told(p, u, l.rooms[a], l.devices[a])
	}
}

// OnAsked makes every question call f first, under no lock of the locator.
func (l *Locator) OnAsked(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = f
}

func (l *Locator) ask() {
	l.mu.Lock()
	f := l.asked
	l.mu.Unlock()
	if f != nil {
		f()
	}
}

// RoomsOf returns the rooms of each user.
func (l *Locator) RoomsOf(p push.ProductID, users []push.UserID) [][]push.RoomID {
	l.ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([][]push.RoomID, len(users))
	for i, u := range users {
		out[i] = l.rooms[account{p, u}]
	}
	return out
}

// RoomsIn returns the rooms of all users of a shard, sorted.
func (l *Locator) RoomsIn(p push.ProductID, s push.Shard) []push.RoomID {
	l.ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []push.RoomID
	for a, rooms := range l.rooms {
		if a.product == p && push.ShardOf(a.user, Shards) == s {
			out = append(out, rooms...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// OnlineDevices returns the devices of a user that are online.
func (l *Locator) OnlineDevices(p push.ProductID, u push.UserID) []push.DeviceID {
	l.ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.devices[account{p, u}])
}
