//go:build linux

package ws

import (
	"net/http"
	"syscall"
	"testing"

	"carillon/server/wire"
)

// A process that has no descriptor left says so before it promises the client anything.
func TestServeHTTP_WithoutDescriptorsRefuses(t *testing.T) {
	addr, r := start(t, Config{Engine: EngineEpoll})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	if err := c.Send(&wire.Ping{}); err != nil {
		t.Fatal(err)
	}
	get(t, s.frames, "a frame") // the poller read it, so the descriptor is closed that the connection had before it was parked

	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	// Room for both ends of one more connection, and not for what it would be parked on.
	highest := uint64(0)
	for fd := range uint64(limit.Cur) {
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); errno == 0 {
			highest = fd
		}
		if fd > highest+1000 {
			break
		}
	}
	var fill []int
	for {
		fd, err := syscall.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(fd) > highest {
			syscall.Close(fd)
			break
		}
		fill = append(fill, fd)
	}
	defer func() {
		for _, fd := range fill {
			syscall.Close(fd)
		}
	}()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: highest + 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	res, p := request(t, addr, handshake)
	if res.StatusCode != http.StatusServiceUnavailable || p.Code != "overloaded" || res.Header.Get("Retry-After") != "1" {
		t.Errorf("got %d %+v, Retry-After %q, want 503 overloaded, and 1", res.StatusCode, p, res.Header.Get("Retry-After"))
	}
	if len(r.began) > 0 {
		t.Error("a refused request got a session")
	}
}
