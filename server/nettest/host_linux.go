package nettest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace that lives as long as its descriptor, and as what runs in it.
type namespace struct{ fd int }

// newNamespace makes one in which nothing is but a loopback interface that is down. Threads are in home before and after: one that
// was thrown away instead might be the process's first, which cannot end, and would hold the namespace for good.
func newNamespace(home namespace) (made namespace, err error) {
	err = home.within(home, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("nettest: make a network namespace: %w", err)
		}
		made, err = currentNamespace()
		return err
	})
	return made, err
}

// currentNamespace returns that of the calling thread.
func currentNamespace() (namespace, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return namespace{}, fmt.Errorf("nettest: open the network namespace: %w", err)
	}
	return namespace{fd}, nil
}

// path names the namespace for other processes.
func (ns namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.fd) }

func (ns namespace) enter() error {
	if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("nettest: enter the network namespace: %w", err)
	}
	return nil
}

func (ns namespace) close() { _ = unix.Close(ns.fd) }

// within runs f on a thread that is in ns, and brings the thread back home.
func (ns namespace) within(home namespace, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := ns.enter(); err != nil {
		return err
	}
	defer func() {
		if err := home.enter(); err != nil {
			panic(err) // this thread would go on in the wrong network, on behalf of anybody
		}
	}()
	return f()
}

// Host is a machine on a network. Its methods are safe for concurrent use, but for Readdress beside itself.
type Host struct {
	// Static after construction.
	Name string
	net  *Network
	ns   namespace
	mac  string
	num  int // its number on the network, from 1

	mu sync.Mutex
	// Guarded by mu.
	moves int // how often its address has changed
}

// Addr returns the host's address at the moment.
func (h *Host) Addr() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addrLocked()
}

func (h *Host) addrLocked() string { return fmt.Sprintf("10.77.%d.%d", h.moves, h.num) }

// Do runs f on a thread that is in the host's namespace: sockets that f makes, and processes that it starts, are the host's for
// ever. Goroutines that f starts are not.
func (h *Host) Do(f func() error) error { return h.ns.within(h.net.home, f) }

// Listen is net.Listen on the host.
func (h *Host) Listen(network, address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		var lc net.ListenConfig
		l, err = lc.Listen(context.Background(), network, address)
		return err
	})
	return l, err
}

// DialContext is that of a net.Dialer on the host. The address is numeric: there are no names on the network.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return h.DialWith(ctx, &net.Dialer{}, network, address)
}

// DialWith is DialContext with a dialer of the caller's.
func (h *Host) DialWith(ctx context.Context, d *net.Dialer, network, address string) (nc net.Conn, err error) {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(name) == nil {
		return nil, fmt.Errorf("nettest: %s is no numeric address", address) // it would be looked up, and dialed, by goroutines elsewhere
	}
	err = h.Do(func() error {
		nc, err = d.DialContext(ctx, network, address)
		return err
	})
	return nc, err
}

// Start starts a process on the host. Whoever starts it ends it, and waits for it.
func (h *Host) Start(c *exec.Cmd) error { return h.Do(c.Start) }

// Readdress takes the host's address away and gives it another one, as when a phone goes from one network to the next. As phones
// do, it ends the sockets of the old address at the host: their owners learn of it at once, and nobody else does, for there is
// no way for a goodbye.
func (h *Host) Readdress() {
	h.net.t.Helper()
	old := h.readdress()
	h.must("ss", "--kill", "--tcp", "src", old)
}

// ReaddressSilently is Readdress at a host that tells nobody: the sockets of the old address stay, and are dead.
func (h *Host) ReaddressSilently() {
	h.net.t.Helper()
	h.readdress()
}

func (h *Host) readdress() (old string) {
	h.net.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	old = h.addrLocked()
	h.moves++
	if h.moves > 255 {
		h.net.t.Fatal("nettest: there are no more addresses")
	}
	h.must("ip", "address", "delete", old+"/16", "dev", "eth0")
	h.must("ip", "address", "add", h.addrLocked()+"/16", "dev", "eth0")
	return old
}

// must runs a program on the host to its end, and returns what it printed. The test fails if the program does.
func (h *Host) must(name string, args ...string) string {
	h.net.t.Helper()
	out, err := h.run(name, args...)
	if err != nil {
		h.net.t.Fatal(err)
	}
	return out
}

func (h *Host) run(name string, args ...string) (string, error) {
	var out, errOut bytes.Buffer
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = &out, &errOut
	err := h.Start(c)
	if err == nil {
		err = c.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("nettest: on %s: %s %s: %w: %s", h.Name, name, strings.Join(args, " "), err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}
