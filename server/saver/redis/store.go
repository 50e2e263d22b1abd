package redis

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// Config is what a store is made of. DB and Shards have no useful zero value.
type Config struct {
	DB     *redisdb.DB                      // belongs to the caller, who closes it after the store
	Shards func(push.ProductID) int         // of a product, 0 if there is none: Message finds the record of an id by asking each
	Limits func(push.ProductID) push.Limits // of products, for the sweep; nil: the defaults
	Clock  clock.Clock                      // paces Run; nil: clock.System
	Rand   io.Reader                        // source of epochs, read once, 32 bytes; nil: crypto/rand
	Log    *slog.Logger                     // nil: discards

	// Inline is the most bytes of a body that lies in each of several slots' entries instead of once for all; 0: 256.
	Inline int
	// SweepKeys is how many keys Run looks at in a second; 0: 2 000.
	SweepKeys int
}

const (
	defaultInline    = 256
	defaultSweepKeys = 2000
)

// database is what the store asks of redisdb; its tests lose replies and nodes here.
type database interface {
	Read(ctx context.Context, rs ...*redisdb.Read)
	Peek(ctx context.Context, rs ...*redisdb.Read)
	Write(ctx context.Context, ws ...*redisdb.Write)
	Walk(kind string) *redisdb.Walk
	Presume(t redisdb.Tag) (redisdb.Answer, bool)
	Durability() push.Durability
	Health(ctx context.Context) error
	Full() bool
	Confirm(ctx context.Context) bool
}

// Store is a [saver.Store] on Redis.
type Store struct {
	// Static after New.
	db        database
	shards    func(push.ProductID) int
	limits    func(push.ProductID) push.Limits
	clock     clock.Clock
	log       *slog.Logger
	inline    int
	sweepKeys int
	slack     int // see slot

	turns   *turns
	guesses *guesses
	claims  claims
	lasting lasting
	looks   looks

	randMu sync.Mutex
	rand   *rand.Rand // guarded by randMu

	lifeMu sync.RWMutex
	closed bool // guarded by lifeMu
	calls  sync.WaitGroup
}

var _ saver.Store = (*Store)(nil)

// New returns the store that lies in a database, empty or as it was left.
func New(c Config) (*Store, error) {
	if c.DB == nil || c.Shards == nil {
		return nil, push.Errorf(push.KindInvalid, "invalid_config", "the store needs a database, and the number of shards of products")
	}
	s := &Store{
		db: c.DB, shards: c.Shards, limits: c.Limits, clock: c.Clock, log: c.Log,
		inline: c.Inline, sweepKeys: c.SweepKeys, slack: listSlack, turns: newTurns(), guesses: newGuesses(),
	}
	if s.limits == nil {
		s.limits = func(push.ProductID) push.Limits { return push.Limits{} }
	}
	if s.clock == nil {
		s.clock = clock.System
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.inline == 0 {
		s.inline = defaultInline
	}
	if s.sweepKeys <= 0 {
		s.sweepKeys = defaultSweepKeys
	}
	source := c.Rand
	if source == nil {
		source = crand.Reader
	}
	var seed [32]byte
	if _, err := io.ReadFull(source, seed[:]); err != nil {
		return nil, fmt.Errorf("saver: new redis store: %w", err)
	}
	s.rand = rand.New(rand.NewChaCha8(seed))
	return s, nil
}

// enter begins a call, which ends with s.calls.Done.
func (s *Store) enter(op string) error {
	s.lifeMu.RLock()
	defer s.lifeMu.RUnlock()
	if s.closed {
		return fmt.Errorf("saver: %s: %w", op, saver.ErrClosed())
	}
	s.calls.Add(1)
	return nil
}

// Close waits for the calls under way. The database stays open.
func (s *Store) Close() error {
	s.lifeMu.Lock()
	s.closed = true
	s.lifeMu.Unlock()
	s.calls.Wait()
	return nil
}

// epoch returns 63 random bits, not all zero.
func (s *Store) epoch() push.SlotEpoch {
	s.randMu.Lock()
	defer s.randMu.Unlock()
	for {
		if n := s.rand.Uint64() >> 1; n != 0 {
			return push.SlotEpoch(n)
		}
	}
}

func (s *Store) read(ctx context.Context, rs ...*redisdb.Read)   { s.db.Read(ctx, rs...) }
func (s *Store) peek(ctx context.Context, rs ...*redisdb.Read)   { s.db.Peek(ctx, rs...) }
func (s *Store) write(ctx context.Context, ws ...*redisdb.Write) { s.db.Write(ctx, ws...) }

// askedTag is the tag under which the store asks for nothing but time and lineage.
const askedTag = redisdb.Tag("asked")

// ask reads nothing: the answer says what every answer says.
func (s *Store) ask(ctx context.Context) (redisdb.Answer, error) {
	r := &redisdb.Read{Tag: askedTag, Do: []redisdb.Command{{Name: "EXISTS", Key: askedTag.Key("a", "")}}}
	s.read(ctx, r)
	return r.Answer, r.Err
}

// Lineage returns the primary's. A cluster has one for each master: this is that of one of them, and what matters is the one in
// each answer.
func (s *Store) Lineage(ctx context.Context) (push.Lineage, error) {
	if err := s.enter("lineage"); err != nil {
		return 0, err
	}
	defer s.calls.Done()
	a, err := s.ask(ctx)
	if err != nil {
		return 0, fmt.Errorf("saver: lineage: %w", err)
	}
	return a.Lineage, nil
}

// Durability returns what the database promises.
func (s *Store) Durability() push.Durability { return s.db.Durability() }

// Health returns nil if Redis answers, keeps what was promised, and has room.
func (s *Store) Health(ctx context.Context) error {
	if err := s.enter("health"); err != nil {
		return err
	}
	defer s.calls.Done()
	err := s.db.Health(ctx)
	if err == nil && s.db.Full() {
		err = &push.Error{Kind: push.KindUnavailable, Code: "store_full", After: time.Second}
	}
	if err == nil {
		_, err = s.ask(ctx)
	}
	if err != nil {
		return fmt.Errorf("saver: health: %w", err)
	}
	return nil
}

// lasting remembers until when the hashes of records that this node writes to last, so that their time to live is set once, and
// not with every record.
type lasting struct {
	mu    sync.Mutex
	until map[redisdb.Tag]lastingHash // guarded by mu; by shard, the hash written last
}

type lastingHash struct {
	key     string
	lineage push.Lineage
	until   push.MilliTime
}

// lastingMost bounds what is remembered.
const lastingMost = 1 << 16

// recordsLast is how much longer than the longest-lived record in it a hash of records is let live: as long as it may still be
// written to, and then some.
const recordsLast = 25 * time.Hour

// due returns how long a hash of records has to be made to live, 0 if it lives long enough for one that is needed until then. Once
// that is written, note is called.
func (l *lasting) due(t redisdb.Tag, key string, a redisdb.Answer, until push.MilliTime) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h, ok := l.until[t]; ok && h.key == key && h.lineage == a.Lineage && h.until >= until {
		return 0
	}
	longest := push.Limits{}.WithDefaults().TTL
	return time.Duration(max(until, a.Now.Add(longest))-a.Now)*time.Millisecond + recordsLast
}

// note remembers that a hash of records lives for so long from a's time on.
func (l *lasting) note(t redisdb.Tag, key string, a redisdb.Answer, lives time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until == nil || len(l.until) >= lastingMost {
		l.until = make(map[redisdb.Tag]lastingHash)
	}
	l.until[t] = lastingHash{key, a.Lineage, a.Now.Add(lives - recordsLast/2)}
}
