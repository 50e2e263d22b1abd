package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// floor is what the kernel alone takes for a broadcast.
type floor struct {
	cpu   time.Duration // of the writing threads, for one write
	round time.Duration // from the first write until all is read, for one socket of the round
}

const (
	floorRounds  = 20
	floorWriters = 2
)

// measureFloor writes size bytes to each of so many plain TCP connections, from two threads, while a third reads what arrives.
func measureFloor(sockets, size int) (f floor, err error) {
	err = withPlain(sockets, func(p *plain) (err error) {
		f, err = p.measure(size)
		return err
	})
	return f, err
}

func (p *plain) measure(size int) (floor, error) {
	var f floor
	var cpu [floorWriters]time.Duration
	var errs [floorWriters]error
	body := make([]byte, size)
	for range floorRounds {
		began := time.Now()
		var writers sync.WaitGroup
		for w := range floorWriters {
			writers.Go(func() {
				var used time.Duration
				used, errs[w] = writeAll(p.near[w*len(p.near)/floorWriters:(w+1)*len(p.near)/floorWriters], body)
				cpu[w] += used
			})
		}
		err := p.readAll(size)
		writers.Wait()
		if err = errors.Join(append(errs[:], err)...); err != nil {
			return f, err
		}
		f.round += time.Since(began)
	}
	n := time.Duration(floorRounds * len(p.near))
	for _, c := range cpu {
		f.cpu += c
	}
	f.cpu /= n
	f.round /= n
	return f, nil
}

// writeAll writes to sockets, one after the other, and returns the processor time of that.
func writeAll(fds []int, body []byte) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := threadTime()
	if err != nil {
		return 0, err
	}
	for _, fd := range fds {
		if n, err := unix.Write(fd, body); err != nil || n != len(body) {
			return 0, fmt.Errorf("wrote %d of %d bytes: %v", n, len(body), err)
		}
	}
	after, err := threadTime()
	return after - before, err
}

// readAll reads until every socket had its bytes.
func (p *plain) readAll(size int) error {
	events := make([]unix.EpollEvent, 512)
	buf := make([]byte, 64<<10)
	for left := size * len(p.far); left > 0; {
		came, err := p.wait(events)
		if err != nil {
			return fmt.Errorf("%d bytes do not arrive: %w", left, err)
		}
		for _, e := range came {
			k, err := unix.Read(int(e.Fd), buf)
			if err != nil && err != unix.EAGAIN {
				return os.NewSyscallError("read", err)
			}
			left -= max(k, 0)
		}
	}
	return nil
}
