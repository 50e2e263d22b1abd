package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"carillon/server/bench/child"
	"carillon/server/bench/sample"
	"carillon/server/dev"
)

// startPatience is how long a server may take until it is ready.
const startPatience = 60 * time.Second

// shutdownTimeout outlasts a session of polls that was replaced and waits for its client, which never comes, to be told.
const shutdownTimeout = "20s"

// server is the server that is measured: one that was started for it, or one that runs.
type server struct {
	pid    int
	data   string
	file   dev.File
	public string // IP address and port
	tcp    string // the same, of the listener for raw TCP; empty: there is none
	flags  []string
	env    []string

	child *child.Process // nil: it was there before us
	temp  string         // to be removed
}

// startServer starts a development server on a directory of its own and waits until it takes clients.
func startServer(ctx context.Context, cfg Config, heartbeat time.Duration, flags [][2]string) (s *server, err error) {
	temp, err := os.MkdirTemp(cfg.Dir, "carillon-bench.")
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s = &server{temp: temp, data: filepath.Join(temp, "data"), env: cfg.Env}
	defer func() {
		if err == nil {
			return
		}
		stopping := s.stop()
		if !errors.Is(err, errNotStarted) { // which says already how it ended
			err = errors.Join(err, stopping)
		}
		s = nil
	}()
	s.flags = cfg.ServerFlags
	args := []string{"serve", "--dev", "--data=" + s.data}
	for _, d := range append([][2]string{
		{"--public-listen", "127.0.0.1:0"}, {"--admin-listen", "127.0.0.1:0"}, {"--tcp-listen", "127.0.0.1:0"}, {"--log-level", "warn"},
		{"--heartbeat-interval", heartbeat.String()}, {"--shutdown-timeout", shutdownTimeout},
	}, flags...) {
		if !cfg.gives(d[0]) {
			args = append(args, d[0]+"="+d[1])
		}
	}
	if s.child, err = child.Start(append([]string{cfg.Executable}, append(args, cfg.ServerFlags...)...), cfg.Env); err != nil {
		return s, err
	}
	s.pid = s.child.PID()
	return s, s.await(ctx)
}

var errNotStarted = errors.New("the server ended before it was ready")

// await waits until the server that was started is ready.
func (s *server) await(ctx context.Context) error {
	return awaitReady(ctx, s.child, func(ctx context.Context) (bool, error) {
		if err := s.load(); err != nil {
			if dev.IsMissing(err) {
				return false, nil
			}
			return false, err
		}
		_, err := s.ready(ctx)
		return err == nil, nil
	})
}

// awaitReady asks again and again whether a process that was started is ready, until it is, has ended, or has taken too long.
func awaitReady(ctx context.Context, c *child.Process, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-c.Exited():
			return fmt.Errorf("%w: %w", errNotStarted, c.Err())
		case <-ctx.Done():
			return fmt.Errorf("the server did not become ready: %w\n%s", context.Cause(ctx), c.Said())
		case <-poll.C:
		}
		if ok, err := ready(ctx); ok || err != nil {
			return err
		}
	}
}

// attach finds a running development server by its data directory.
func attach(data string) (*server, error) {
	s := &server{data: data}
	if err := s.load(); err != nil {
		if dev.IsMissing(err) {
			return nil, usagef("%s is not there: --data is the data directory of a running \"carillon serve --dev\"", dev.Path(data))
		}
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(data, pidFile))
	if err != nil {
		return nil, fmt.Errorf("whose process is it? %w", err)
	}
	if s.pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil || s.pid <= 0 {
		return nil, fmt.Errorf("%s does not hold the number of a process", filepath.Join(data, pidFile))
	}
	if err := s.inspect(); err != nil {
		return nil, fmt.Errorf("process %d, which %s names, cannot be measured: %w", s.pid, pidFile, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := s.ready(ctx); err != nil {
		return nil, fmt.Errorf("the server of %s: %w", data, err)
	}
	return s, nil
}

// pidFile is where a development server leaves its process id.
const pidFile = "dev.pid"

// inspect reads everything of the process that a measurement needs, once, so that what may not be read is told at once.
func (s *server) inspect() error {
	if _, err := sample.CPU(s.pid); err != nil {
		return err
	}
	if _, err := sample.Resident(s.pid); err != nil {
		return err
	}
	words, err := sample.CommandLine(s.pid)
	if err != nil {
		return err
	}
	at := slices.Index(words, "serve")
	if at < 0 {
		return fmt.Errorf("it is no \"carillon serve\"; was the server killed, and its number given to another?")
	}
	s.flags = words[at+1:]
	s.env, err = sample.Environ(s.pid)
	return err
}

// load reads the server's dev.json and refuses addresses beyond this machine.
func (s *server) load() (err error) {
	if s.file, err = dev.Load(s.data); err != nil {
		return err
	}
	if s.public, err = loopback(s.file.Public, "http"); err != nil {
		return err
	}
	if s.tcp = ""; s.file.TCP != "" {
		if s.tcp, err = loopback(s.file.TCP, "tcp"); err != nil {
			return err
		}
	}
	_, err = loopback(s.file.Admin, "http")
	return err
}

// loopback returns the IP address and port of a URL, if it is of this machine alone. A name other than localhost is not
// looked up: what it means may change between two looks.
func loopback(address, scheme string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != scheme {
		return "", fmt.Errorf("%q is not the address of a listener without TLS (%s://)", address, scheme)
	}
	host := u.Hostname()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return "", usagef("the server is at %s: the bench loads servers on this machine alone, by a loopback address", address)
	}
	return net.JoinHostPort(host, u.Port()), nil
}

// canHold says if the server cannot hold so many clients.
func (s *server) canHold(clients int) error {
	_, hard, err := sample.OpenFiles(s.pid)
	if err != nil {
		return err
	}
	if uint64(clients)+spareFiles > hard {
		return usagef("%d clients are too many for one server here: a process may open %d files (ulimit -n)", clients, hard)
	}
	return nil
}

// status is what /readyz says, as far as it matters here.
type status struct {
	Clients int    `json:"clients"`
	Engine  string `json:"engine"`
}

func (s *server) ready(ctx context.Context) (status, error) {
	var st status
	return st, s.admin(ctx, http.MethodGet, "/readyz", &st)
}

// facts returns what may change the figures.
func (s *server) facts(ctx context.Context) (ServerFacts, error) {
	f := ServerFacts{Flags: s.flags, Running: s.child == nil}
	for _, v := range s.env {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "GOGC":
			f.GOGC = value
		case "GOMEMLIMIT":
			f.GOMEMLIMIT = value
		case "GOMAXPROCS":
			f.GOMAXPROCS = value
		}
	}
	st, err := s.ready(ctx)
	if err != nil {
		return f, err
	}
	f.Engine = st.Engine
	f.Filesystem, err = sample.Filesystem(s.data)
	return f, err
}

// held is what /debug/free says.
type held struct {
	HeapAlloc  int64 `json:"heap_alloc"`
	HeapInuse  int64 `json:"heap_inuse"`
	StackInuse int64 `json:"stack_inuse"`
	Goroutines int   `json:"goroutines"`
}

// free lets the server collect its garbage and give back its memory, and returns what is left.
func (s *server) free(ctx context.Context) (held, error) {
	var h held
	return h, s.admin(ctx, http.MethodPost, "/debug/free", &h)
}

// admin asks the admin listener for a JSON answer.
func (s *server) admin(ctx context.Context, method, path string, out any) error {
	return s.adminDo(ctx, method, path, nil, func(b []byte) error { return json.Unmarshal(b, out) })
}

// adminDo sends a request to the admin listener, and has the answer read.
func (s *server) adminDo(ctx context.Context, method, path string, body []byte, read func([]byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.file.Admin+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.file.Secret)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Close = true // seldom; a connection that stays open would be one file more, at both ends
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("the server answered %d", resp.StatusCode)
	}
	if err == nil {
		err = read(b)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// stop ends a server that was started here, and removes its directory.
func (s *server) stop() error { return errors.Join(s.end(), s.remove()) }

// end ends the process.
func (s *server) end() error {
	if s.child == nil {
		return nil
	}
	if err := s.child.Stop(); err != nil {
		return fmt.Errorf("the server: %w", err)
	}
	return nil
}

// remove removes the directory.
func (s *server) remove() error {
	if s.temp == "" {
		return nil
	}
	return os.RemoveAll(s.temp)
}
