package proxytest

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"carillon/server/clock"
)

const (
	inFlight  = 64 << 10 // what a direction keeps as long as nothing holds it up
	heldAtAll = 16 << 20 // and in all
	readSize  = 32 << 10
)

// past is a deadline that has passed: it ends a system call that is under way.
var past = time.Unix(1, 0)

// piece is what one read gave.
type piece struct {
	b   []byte
	due time.Time // not to be written before
}

// flow is one direction of a link. Two goroutines drive it: read, from src to the queue, and write, from there to dst.
type flow struct {
	// Static after construction.
	l        *Link
	from, to Side
	src, dst *net.TCPConn

	// Guarded by Link.mu.
	Flow
	queue              []piece
	reading, writing   bool // inside the system call
	stalled, held      bool
	dropping           bool
	limit              int // of one write; 0: none
	delayMin, delayMax time.Duration
	lastDue            time.Time
	cutAfter           int64 // bytes to be written before both sides are reset; -1: never
	broken             bool  // src ended with a reset
	wrote              bool  // write has returned
}

// read takes what comes until the stream ends.
func (f *flow) read() {
	buf := make([]byte, readSize)
	for f.mayRead() {
		n, err := f.src.Read(buf)
		if f.took(buf[:n], err) {
			return
		}
	}
}

// mayRead waits until a read is allowed; false if there will be none any more.
func (f *flow) mayRead() bool {
	l := f.l
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.ended && (f.stalled || f.fullLocked()) {
		l.changed.Wait()
	}
	if l.ended {
		return false
	}
	f.src.SetReadDeadline(time.Time{})
	f.reading = true
	return true
}

func (f *flow) fullLocked() bool {
	most := int64(inFlight)
	if f.held || f.delayMax > 0 {
		most = heldAtAll
	}
	return f.Waiting() >= most
}

// took notes what a read gave, and reports whether it was the last one.
func (f *flow) took(b []byte, err error) (last bool) {
	delay := f.delay()
	l := f.l
	l.mu.Lock()
	defer l.mu.Unlock()
	f.reading = false
	f.Read += int64(len(b))
	switch {
	case len(b) == 0:
	case f.lostLocked():
		f.Dropped += int64(len(b))
	default:
		due := l.p.clock.Now().Add(delay)
		if due.Before(f.lastDue) {
			due = f.lastDue
		}
		f.lastDue = due
		f.queue = append(f.queue, piece{append([]byte(nil), b...), due})
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		last = true
		f.Ended = true
		f.broken = !errors.Is(err, io.EOF)
	}
	l.noteLocked()
	return last
}

func (f *flow) delay() time.Duration {
	f.l.mu.Lock()
	least, most := f.delayMin, f.delayMax
	f.l.mu.Unlock()
	return f.l.p.between(least, most)
}

// lostLocked reports whether bytes of this direction arrive nowhere.
func (f *flow) lostLocked() bool { return f.dropping || f.l.gone != 0 }

func (f *flow) dropQueueLocked() {
	f.Dropped = f.Read - f.Written
	f.queue = nil
}

// write gives what was read to the other side until there will be no more.
func (f *flow) write() {
	for {
		b := f.mayWrite()
		if b == nil {
			f.ends()
			return
		}
		n, err := f.dst.Write(b)
		f.gave(n, err)
	}
}

// mayWrite waits until a write is allowed and returns what it writes; nil if there will be none any more.
func (f *flow) mayWrite() []byte {
	l := f.l
	l.mu.Lock()
	defer l.mu.Unlock()
	var timer clock.Timer
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	for {
		if f.lostLocked() {
			f.dropQueueLocked()
		}
		if l.ended || f.Ended && len(f.queue) == 0 {
			return nil
		}
		if !f.held && len(f.queue) > 0 {
			first := f.queue[0]
			wait := first.due.Sub(l.p.clock.Now())
			if wait <= 0 {
				n := len(first.b)
				if f.limit > 0 {
					n = min(n, f.limit)
				}
				if f.cutAfter >= 0 {
					n = int(min(int64(n), f.cutAfter))
				}
				if n == 0 { // it was to be cut right here
					l.resetLocked(Client | Server)
					continue
				}
				f.dst.SetWriteDeadline(time.Time{})
				f.writing = true
				return first.b[:n]
			}
			if timer != nil {
				timer.Stop()
			}
			timer = l.p.clock.AfterFunc(wait, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.changed.Broadcast()
			})
		}
		l.changed.Wait()
	}
}

// gave notes what a write took.
func (f *flow) gave(n int, err error) {
	l := f.l
	l.mu.Lock()
	defer l.mu.Unlock()
	f.writing = false
	f.Written += int64(n)
	if f.dropping { // the queue is gone already
		f.Dropped = f.Read - f.Written
	} else {
		f.queue[0].b = f.queue[0].b[n:]
		if len(f.queue[0].b) == 0 {
			f.queue = f.queue[1:]
		}
	}
	if f.cutAfter >= 0 {
		if f.cutAfter -= int64(n); f.cutAfter == 0 {
			l.resetLocked(Client | Server)
		}
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		f.dropping = true // whoever is gone is told by nobody; the reader of that side meets its end
		f.dropQueueLocked()
	}
	l.noteLocked()
}

// ends passes on the end of the stream, and closes the link when both directions are through.
func (f *flow) ends() {
	l := f.l
	l.mu.Lock()
	defer l.mu.Unlock()
	f.wrote = true
	if !l.ended && !f.lostLocked() {
		if f.broken {
			l.resetLocked(f.to)
		} else {
			f.dst.CloseWrite()
		}
	}
	if l.up.wrote && l.down.wrote {
		l.overLocked()
	}
}
