package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pingBytes is how long a ping is, and its answer, about.
const pingBytes = 8

// measureEcho sends pings over so many plain TCP connections in turn, one every so often, until d has passed or ctx is done. A
// thread that waits for them reads each and writes as many bytes back. It returns that thread's processor time for one ping; 0 if
// none came in that time.
func measureEcho(ctx context.Context, sockets int, every, d time.Duration) (cpu time.Duration, err error) {
	err = withPlain(sockets, func(p *plain) error {
		n, used, err := p.pings(ctx, every, d)
		if n > 0 {
			cpu = used / time.Duration(n)
		}
		return err
	})
	return cpu, err
}

// pings returns how many were answered, and the processor time of that.
func (p *plain) pings(ctx context.Context, every, d time.Duration) (n int, used time.Duration, err error) {
	var echoing error
	var echo sync.WaitGroup
	echo.Go(func() { used, echoing = p.echo() })
	n, err = p.ping(ctx, every, d)
	// An end of stream ends the echo.
	err = errors.Join(err, os.NewSyscallError("shutdown", unix.Shutdown(p.near[0], unix.SHUT_WR)))
	echo.Wait()
	return n, used, errors.Join(err, echoing)
}

// ping sends pings, each when it is due, and waits for its answer, by which this thread is woken as a client of the bench is.
func (p *plain) ping(ctx context.Context, every, d time.Duration) (n int, err error) {
	b := make([]byte, pingBytes)
	began := time.Now()
	for due := every; due <= d && ctx.Err() == nil; due += every {
		for left := due - time.Since(began); left > 0; left = due - time.Since(began) {
			pause := unix.NsecToTimespec(int64(left))
			_ = unix.Nanosleep(&pause, nil) // a signal ends it early; Go's timers come up to a millisecond late
		}
		fd := p.near[n%len(p.near)]
		if _, err := unix.Write(fd, b); err != nil {
			return n, os.NewSyscallError("write", err)
		}
		k, err := unix.Read(fd, b)
		for err == unix.EINTR { // as a read with a limit of time may be
			k, err = unix.Read(fd, b)
		}
		switch {
		case err != nil:
			return n, os.NewSyscallError("read", err)
		case k != len(b):
			return n, fmt.Errorf("%d of %d bytes came back", k, len(b))
		}
		n++
	}
	return n, nil
}

// echo answers until one of the streams ends, and returns the processor time of that.
func (p *plain) echo() (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := threadTime()
	if err != nil {
		return 0, err
	}
	events := make([]unix.EpollEvent, 512)
	buf := make([]byte, pingBytes)
	for {
		came, err := p.wait(events)
		if err != nil {
			return 0, err
		}
		for _, e := range came {
			n, err := unix.Read(int(e.Fd), buf)
			switch {
			case err == unix.EAGAIN:
				continue
			case err != nil:
				return 0, os.NewSyscallError("read", err)
			case n == 0:
				after, err := threadTime()
				return after - before, err
			}
			if _, err := unix.Write(int(e.Fd), buf[:n]); err != nil {
				return 0, os.NewSyscallError("write", err)
			}
		}
	}
}
