package redisdb

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// sentinel answers as a sentinel does, with what it believes. Close waits for those who ask.
type sentinel struct {
	l      net.Listener
	asking sync.WaitGroup

	silent atomic.Bool // it hangs up when it is asked

	epoch          int
	own, forOthers string // address of the primary: as it has it, and as it names it to clients
}

func startSentinel(t *testing.T, epoch int, own, forOthers string) *sentinel {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sentinel{l: l, epoch: epoch, own: own, forOthers: forOthers}
	s.asking.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.asking.Go(func() {
				defer nc.Close()
				s.serve(nc)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.asking.Wait()
	})
	return s
}

func (s *sentinel) serve(nc net.Conn) {
	r := bufio.NewReader(nc)
	for {
		command, err := readCommand(r)
		if err != nil || s.silent.Load() {
			return
		}
		switch strings.ToUpper(strings.Join(command, " ")) {
		case "SENTINEL MASTER SHOP":
			ip, port, _ := net.SplitHostPort(s.own)
			_, err = io.WriteString(nc, list("name", "shop", "ip", ip, "port", port, "config-epoch", fmt.Sprint(s.epoch)))
		case "SENTINEL GET-MASTER-ADDR-BY-NAME SHOP":
			ip, port, _ := net.SplitHostPort(s.forOthers)
			_, err = io.WriteString(nc, list(ip, port))
		default:
			_, err = fmt.Fprintf(nc, "-ERR unknown command '%s'\r\n", command[0])
		}
		if err != nil {
			return
		}
	}
}

func list(texts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(texts))
	for _, s := range texts {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(s), s)
	}
	return b.String()
}

// readCommand reads a list of strings.
func readCommand(r *bufio.Reader) (command []string, err error) {
	var n int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
		return nil, err
	}
	for range n {
		var size int
		if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(r, text); err != nil {
			return nil, err
		}
		command = append(command, string(text[:size]))
	}
	return command, nil
}

// The sentinel that leads a failover has the new configuration's number while it still has the old primary for its own: until the other replicas
// follow the new one. A primary that was only frozen is back before that, and takes writes that will be gone.
func TestSentinel_ThatLeadsAFailoverIsAskedWhomItNamesToClients(t *testing.T) {
	old, now := pool.Standalone(t), pool.Standalone(t)
	was, is := old.Servers()[0].Addr(), now.Servers()[0].Addr()
	leads, behind := startSentinel(t, 2, was, is), startSentinel(t, 1, was, was)
	c := configOf(now)
	c.Mode, c.Addrs, c.Master = Sentinel, []string{leads.l.Addr().String(), behind.l.Addr().String()}, "shop"
	db, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if ps := db.Primaries(); len(ps) != 1 || ps[0].Addr != is {
		t.Errorf("the primaries are %+v, want %s", ps, is)
	}
	set(t, db, tagOf(1), "a", "1")
	leads.silent.Store(true)
	if err := db.learnFromSentinels(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ps := db.Primaries(); len(ps) != 1 || ps[0].Addr != is {
		t.Errorf("when the one who leads does not answer the primaries are %+v, want %s", ps, is)
	}
	set(t, db, tagOf(1), "b", "1")
	now.Servers()[0].Kill()
	until(t, "the one that still answers is followed when the primary is gone", func() bool { return db.Primaries()[0].Addr == was })
}
