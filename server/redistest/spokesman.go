package redistest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Spokesman answers as a sentinel does who the primary of "shop" is: what a test has it say.
type Spokesman struct {
	l      net.Listener
	asking sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	silent     bool
	epoch      int
	own, named string
}

// StartSpokesman starts one, until the test ends. It says what [Spokesman.Say] says.
func StartSpokesman(t testing.TB, epoch int, own, named string) *Spokesman {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Spokesman{l: l, epoch: epoch, own: own, named: named}
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

// Addr returns where it listens.
func (s *Spokesman) Addr() string { return s.l.Addr().String() }

// Say sets the number of the configuration, the address that the sentinel itself has for the primary's, and the one that it names to clients: they differ
// in the sentinel that leads a failover, until it is over.
func (s *Spokesman) Say(epoch int, own, named string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch, s.own, s.named = epoch, own, named
}

// Silence has it hang up on whoever asks.
func (s *Spokesman) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

func (s *Spokesman) serve(nc net.Conn) {
	r := bufio.NewReader(nc)
	for {
		command, err := readCommand(r)
		if err != nil {
			return
		}
		answer, ok := s.answer(command)
		if !ok {
			return
		}
		if _, err := io.WriteString(nc, answer); err != nil {
			return
		}
	}
}

func (s *Spokesman) answer(command []string) (answer string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch strings.ToUpper(strings.Join(command, " ")) {
	case "SENTINEL MASTER SHOP":
		ip, port, _ := net.SplitHostPort(s.own)
		answer = list("name", "shop", "ip", ip, "port", port, "config-epoch", fmt.Sprint(s.epoch))
	case "SENTINEL GET-MASTER-ADDR-BY-NAME SHOP":
		ip, port, _ := net.SplitHostPort(s.named)
		answer = list(ip, port)
	default:
		answer = "-ERR unknown command\r\n"
	}
	return answer, !s.silent
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
