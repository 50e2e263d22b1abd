package nettest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// echo is a server that gives back what it gets.
func echo(t *testing.T, h *Host, address string) string {
	t.Helper()
	l, err := h.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	over := make(chan struct{})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { _, _ = io.Copy(c, c) })
			running.Go(func() { <-over; c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); close(over); running.Wait() })
	return l.Addr().String()
}

func dial(t *testing.T, h *Host, address string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := h.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// say sends a word and waits for its echo.
func say(c net.Conn, word string) error {
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	return hear(c, word)
}

func hear(c net.Conn, word string) error {
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != word {
		return errors.New("the echo is another word")
	}
	return nil
}

func mustSay(t *testing.T, c net.Conn, word string) {
	t.Helper()
	if err := say(c, word); err != nil {
		t.Fatal(err)
	}
}

// await polls until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patience)
		case <-tick.C:
		}
	}
}

func TestNetwork_HostsReachEachOtherAndNobodyElse(t *testing.T) {
	n := New(t)
	alice, bob := n.Host("alice"), n.Host("bob")
	mustSay(t, dial(t, alice, echo(t, bob, bob.Addr()+":7")), "hello")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c, err := alice.DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("a host reaches the machine that the test runs on")
	}
	if _, err := alice.DialContext(t.Context(), "tcp", "localhost:7"); err == nil {
		t.Error("a name was dialed")
	}
	other := New(t)
	carol := other.Host("carol") // has alice's address, on another network
	if carol.Addr() != alice.Addr() {
		t.Fatalf("carol is at %s, alice at %s", carol.Addr(), alice.Addr())
	}
	other.Host("dave")
	if c, err := carol.DialContext(t.Context(), "tcp", bob.Addr()+":7"); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("dialing bob's address on another network: got %v, want refused by who has it there", err)
	}
}

func TestNetwork_CutTellsNobodyAndHealsByItself(t *testing.T) {
	n := New(t)
	alice, bob := n.Host("alice"), n.Host("bob")
	cathy := n.Host("cathy")
	address := echo(t, bob, bob.Addr()+":7")
	c, beside := dial(t, alice, address), dial(t, cathy, address)
	mustSay(t, c, "before")
	n.Cut(alice, bob)
	if _, err := io.WriteString(c, "into the dark"); err != nil {
		t.Fatalf("writing into a dead network: %v", err)
	}
	await(t, "a packet vanishes", func() bool { return n.Vanished(alice, bob) > 0 })
	if got := n.Vanished(bob, alice); got != 0 {
		t.Errorf("%d packets of bob vanished, who knows of nothing", got)
	}
	mustSay(t, beside, "nobody else is cut off")
	n.Heal(bob, alice)
	if err := hear(c, "into the dark"); err != nil {
		t.Errorf("after the network healed: %v", err)
	}
	if got := n.Vanished(alice, bob); got != 0 {
		t.Errorf("after the network healed a fault counts %d packets", got)
	}
}

func TestNetwork_OneWayLosesOneDirectionAlone(t *testing.T) {
	n := New(t)
	alice, bob := n.Host("alice"), n.Host("bob")
	l, err := bob.Listen("tcp", bob.Addr()+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := dial(t, alice, l.Addr().String())
	atBob, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer atBob.Close()
	_ = atBob.SetDeadline(time.Now().Add(patience))
	n.CutOneWay(bob, alice)
	if _, err := io.WriteString(c, "heard"); err != nil {
		t.Fatal(err)
	}
	if err := hear(atBob, "heard"); err != nil {
		t.Errorf("the direction that works: %v", err)
	}
	if _, err := io.WriteString(atBob, "unheard"); err != nil {
		t.Fatal(err)
	}
	await(t, "bob's packets vanish", func() bool { return n.Vanished(bob, alice) > 1 }) // one confirms what alice sent
	n.HealAll()
	if err := hear(c, "unheard"); err != nil {
		t.Errorf("after the network healed: %v", err)
	}
}

func TestNetwork_RejectResetsBothEnds(t *testing.T) {
	n := New(t)
	alice, bob := n.Host("alice"), n.Host("bob")
	address := echo(t, bob, bob.Addr()+":7")
	c := dial(t, alice, address)
	mustSay(t, c, "before")
	n.Reject(alice, bob)
	if err := say(c, "refused"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("on the connection that was there: got %v, want a reset", err)
	}
	if c, err := alice.DialContext(t.Context(), "tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("a new connection: got %v, want refused", err)
	}
	n.Cut(alice, bob) // in place of the refusal
	n.Heal(alice, bob)
	mustSay(t, dial(t, alice, address), "after")
}

func TestNetwork_PartitionSeparatesSidesAndNoneWithin(t *testing.T) {
	n := New(t)
	var hosts []*Host
	var conns [4][4]net.Conn
	for i := range conns {
		hosts = append(hosts, n.Host(string(rune('a'+i))))
		echo(t, hosts[i], hosts[i].Addr()+":7")
	}
	for i, from := range hosts {
		for j, to := range hosts {
			conns[i][j] = dial(t, from, to.Addr()+":7")
		}
	}
	n.Partition(hosts[:2], hosts[2:])
	for i := range hosts {
		for j := range hosts {
			if (i < 2) == (j < 2) {
				mustSay(t, conns[i][j], "within")
				continue
			}
			if _, err := io.WriteString(conns[i][j], "across"); err != nil {
				t.Fatal(err)
			}
			await(t, "a packet vanishes", func() bool { return n.Vanished(hosts[i], hosts[j]) > 0 })
		}
	}
	n.HealAll()
	for i := range hosts {
		for j := range hosts {
			if (i < 2) != (j < 2) {
				if err := hear(conns[i][j], "across"); err != nil {
					t.Errorf("%d to %d, after the network healed: %v", i, j, err)
				}
			}
		}
	}
}

// look has the kernel say what a read would find, without waiting: EAGAIN if that is neither a byte nor an end, nil if it is.
func look(t *testing.T, c net.Conn) (err error) {
	t.Helper()
	raw, failed := c.(syscall.Conn).SyscallConn()
	if failed == nil {
		failed = raw.Control(func(fd uintptr) {
			_, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		})
	}
	if failed != nil {
		t.Fatal(failed)
	}
	return err
}

func TestHost_ReaddressEndsItsSocketsAndTellsNobodyElse(t *testing.T) {
	n := New(t)
	phone, bob := n.Host("phone"), n.Host("bob")
	l, err := bob.Listen("tcp", bob.Addr()+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := dial(t, phone, l.Addr().String())
	atBob, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer atBob.Close()
	before := phone.Addr()
	phone.Readdress()
	if phone.Addr() == before {
		t.Errorf("the phone is at %s as before", before)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("the phone's socket: got %v, want aborted", err)
	}
	again := dial(t, phone, l.Addr().String())
	if got, _, _ := net.SplitHostPort(again.LocalAddr().String()); got != phone.Addr() {
		t.Errorf("a new connection comes from %s, want %s", got, phone.Addr())
	}
	// Bob has heard nothing on the old one, while the new one works.
	if err := look(t, atBob); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("bob's end of the old connection: got %v, want silence", err)
	}
	n.Cut(phone, bob)
	if _, err := io.WriteString(again, "x"); err != nil {
		t.Fatal(err)
	}
	await(t, "the fault holds at the new address", func() bool { return n.Vanished(phone, bob) > 0 })
}

func TestHost_ReaddressSilentlyTellsNobodyAtAll(t *testing.T) {
	n := New(t)
	phone, bob := n.Host("phone"), n.Host("bob")
	c := dial(t, phone, echo(t, bob, bob.Addr()+":7"))
	mustSay(t, c, "before")
	phone.ReaddressSilently()
	if err := look(t, c); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the phone's socket: got %v, want silence", err)
	}
	mustSay(t, dial(t, phone, bob.Addr()+":7"), "after")
}

func TestHost_StartedProcessesAreOnTheHost(t *testing.T) {
	n := New(t)
	alice := n.Host("alice")
	c := exec.Command("ip", "-brief", "address", "show", "dev", "eth0")
	var out strings.Builder
	c.Stdout = &out
	if err := alice.Start(c); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), alice.Addr()+"/16") {
		t.Errorf("the process sees %q, want %s", out.String(), alice.Addr())
	}
	if _, err := alice.run("ip", "link", "show", "nowhere"); err == nil || !strings.Contains(err.Error(), "alice") {
		t.Errorf("a program that fails: got %v, want an error that names the host", err)
	}
}

// What a test leaves in the process would be found by the next one: threads in the wrong network, and descriptors.
func TestNetwork_LeavesNothingBehind(t *testing.T) {
	n := New(t) // skips without root
	home, err := os.Readlink(n.home.path())
	if err != nil {
		t.Fatal(err)
	}
	before := namespaces(t)
	t.Run("made and left", func(t *testing.T) {
		n := New(t)
		n.Cut(n.Host("alice"), n.Host("bob"))
		if got := namespaces(t); got <= before {
			t.Errorf("%d descriptors of namespaces while there is another network, and %d before", got, before)
		}
	})
	if got := namespaces(t); got != before {
		t.Errorf("%d descriptors of namespaces are open, and were %d before", got, before)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads: %v, %v", threads, err)
	}
	for _, thread := range threads {
		if got, err := os.Readlink(thread); err == nil && got != home { // a thread may end meanwhile
			t.Errorf("a thread is in %s, and the test in %s", got, home)
		}
	}
}

// namespaces counts the descriptors of network namespaces that the process holds.
func namespaces(t *testing.T) (count int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "net:") {
			count++
		}
	}
	return count
}
