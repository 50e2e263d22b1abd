package certificate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/clock"
)

// Config says which certificates there are. Pairs is required.
type Config struct {
	Pairs []Pair // the first is for clients that ask for no name, or for one that none has

	Every time.Duration // how often Run looks at the files; 10 s
	Clock clock.Clock   // clock.System
	Log   *slog.Logger  // none

	// read returns a file and its permissions; tests have files of their own.
	read func(path string) ([]byte, fs.FileMode, error)
}

// Store holds certificates. It is safe for concurrent use.
type Store struct {
	// Static after construction.
	cfg Config

	current atomic.Pointer[inUse]
	renewed atomic.Int64
	failed  atomic.Int64

	renewing sync.Mutex // held while files are read
	// Guarded by renewing.
	states []state
}

// inUse is what handshakes and Status read. It is replaced as a whole.
type inUse struct {
	certs  []*tls.Certificate // never empty
	status []Status
}

// state is what is known of one pair.
type state struct {
	pair Pair
	cert *tls.Certificate  // in use
	sum  [sha256.Size]byte // of the files as they were last read; zero: they could not be
	err  error             // what is wrong with the files since; nil: they are what is in use
}

// Status is how one pair stands.
type Status struct {
	Pair     Pair
	NotAfter time.Time // of the certificate in use
	Err      error     // why the files do not hold what is in use; nil: they do
}

// Open reads all pairs. Each of them has to be good: the error names everything that is wrong, a line each.
func Open(cfg Config) (*Store, error) {
	if len(cfg.Pairs) == 0 {
		return nil, errors.New("certificate: there is no pair of files")
	}
	if cfg.Every <= 0 {
		cfg.Every = 10 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.read == nil {
		cfg.read = readFile
	}
	s := &Store{cfg: cfg, states: make([]state, len(cfg.Pairs))}
	var errs []error
	for i, p := range cfg.Pairs {
		st := &s.states[i]
		st.pair = p
		if slices.ContainsFunc(cfg.Pairs[:i], func(o Pair) bool { return o.Cert == p.Cert }) {
			errs = append(errs, fmt.Errorf("certificate: the certificate %s is named twice", p.Cert))
			continue
		}
		c, err := p.read(cfg.read)
		if err == nil {
			st.cert, err = p.parse(c, cfg.Clock.Now())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate: %w", err))
			continue
		}
		st.sum = c.sum
		s.note(st, c, "certificate")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.publishLocked()
	return s, nil
}

// Config returns the settings of a listener that uses the store: TLS 1.2 and 1.3 as Go has them, and of application protocols
// those that are named. It is the caller's, and stays good for as long as the store is used.
func (s *Store) Config(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: slices.Clone(protocols), GetCertificate: s.choose}
}

// choose returns the first certificate that the client can use, and the first of all if there is none: its complaint says more
// than a broken connection.
func (s *Store) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	certs := s.current.Load().certs
	if len(certs) > 1 {
		for _, c := range certs {
			if hello.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
	}
	return certs[0], nil
}

// Run looks at the files from time to time, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	t := s.cfg.Clock.NewTicker(s.cfg.Every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			_ = s.renew(false) // the log has it, and Status
		}
	}
}

// Reload looks at the files now. The error names the pairs whose files are not good, which go on as they were.
func (s *Store) Reload() error { return s.renew(true) }

// renew takes up what is new in the files. Without asked, what was wrong before and is wrong in the same way is not told again.
func (s *Store) renew(asked bool) error {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	var errs []error
	for i := range s.states {
		if err := s.renewLocked(&s.states[i], asked); err != nil {
			errs = append(errs, fmt.Errorf("certificate: %w", err))
		}
	}
	s.publishLocked()
	return errors.Join(errs...)
}

func (s *Store) renewLocked(st *state, asked bool) error {
	c, err := st.pair.read(s.cfg.read)
	if err == nil && c.sum == st.sum && st.err == nil {
		if asked {
			s.cfg.Log.Info("certificate: the files are those in use", "cert", st.pair.Cert, "not_after", moment(st.cert.Leaf.NotAfter))
		}
		return nil
	}
	var cert *tls.Certificate
	if err == nil {
		cert, err = st.pair.parse(c, s.cfg.Clock.Now())
	}
	if err != nil {
		if told := st.err != nil && st.err.Error() == err.Error() && c.sum == st.sum; asked || !told {
			s.failed.Add(1)
			s.cfg.Log.Error("certificate: the new files are not good; the old certificate stays in use", "cert", st.pair.Cert,
				"not_after", moment(st.cert.Leaf.NotAfter), "error", err)
		}
		st.sum, st.err = c.sum, err
		return err
	}
	back := st.err != nil && slices.EqualFunc(cert.Certificate, st.cert.Certificate, bytes.Equal)
	st.cert, st.sum, st.err = cert, c.sum, nil
	if back {
		s.note(st, c, "certificate: the files are good again")
		return nil
	}
	s.renewed.Add(1)
	s.note(st, c, "certificate: new files are in use")
	return nil
}

// note logs what is in use.
func (s *Store) note(st *state, c contents, message string) {
	leaf := st.cert.Leaf
	s.cfg.Log.Info(message, "cert", st.pair.Cert, "names", leaf.DNSNames, "addresses", leaf.IPAddresses, "not_after", moment(leaf.NotAfter))
	if c.open {
		s.cfg.Log.Warn("certificate: everybody on this machine can read the key; chmod 600 it", "key", st.pair.Key)
	}
}

// publishLocked hands what is in use to handshakes, and to Status.
func (s *Store) publishLocked() {
	use := &inUse{}
	for _, st := range s.states {
		use.certs = append(use.certs, st.cert)
		use.status = append(use.status, Status{Pair: st.pair, NotAfter: st.cert.Leaf.NotAfter, Err: st.err})
	}
	s.current.Store(use)
}

// Status returns how each pair stands. It waits for no file.
func (s *Store) Status() []Status { return slices.Clone(s.current.Load().status) }

// Renewals returns how many new certificates were taken up since Open, and how often files were not good.
func (s *Store) Renewals() (renewed, failed int64) { return s.renewed.Load(), s.failed.Load() }
