package redisdb

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/failpoint"
	"carillon/server/nextversion"
	"carillon/server/planted"
	"carillon/server/push"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

//go:embed carillon.lua
var carillonLua string

var source = carillonLua + nextversion.Script

// The library and its functions carry a mark of their own text in their names, so that two builds that differ in it share one Redis:
// each brings its own and calls its own.
var (
	version = func() string {
		sum := sha256.Sum256([]byte(source))
		return hex.EncodeToString(sum[:6])
	}()
	library       = strings.ReplaceAll(source, "VERSION", version)
	functionRead  = "carillon_read_" + version
	functionFree  = "carillon_free_" + version
	functionWrite = "carillon_write_" + version
)

// primary is one server that takes writes.
type primary struct {
	// Static after construction.
	db     *DB
	addr   string
	plain  *redis.Client // for what is not a write
	strict *redis.Client // its connections come to be only where the settings suffice
	lanes  [classes][]*lane

	elsewhere *redis.Client // of the planted bug WaitElsewhere; nil

	standing atomic.Pointer[standing]
	heard    atomic.Pointer[heard] // nil: nothing yet
	downFrom atomic.Int64          // unix nanoseconds since which nobody could connect; 0: somebody could

	loading sync.Mutex // held while the functions are loaded; nothing else is taken under it
}

// poolSize is more than the connections that are ever used: after so many failures to connect the client would say for a second that it
// cannot, without trying.
const poolSize = 4096

// quiet keeps the Redis client from writing to stderr by itself. What it would say it also returns, and we log that once.
var quiet = sync.OnceFunc(logging.Disable)

func (db *DB) newPrimary(addr string) *primary {
	p := &primary{db: db, addr: addr}
	p.standing.Store(&standing{})
	p.plain = redis.NewClient(db.options(addr))
	o := db.options(addr)
	o.OnConnect = func(ctx context.Context, c *redis.Conn) error {
		s, err := db.look(ctx, c)
		if err == nil {
			err = s.mayConnect()
			p.note(s)
		}
		if err == nil {
			return nil
		}
		if weak, ok := err.(*push.Error); ok {
			return &weakError{weak}
		}
		return &notSentError{err}
	}
	p.strict = redis.NewClient(o)
	if planted.Is(planted.WaitElsewhere) {
		p.elsewhere = redis.NewClient(db.options(addr))
	}
	for c, n := range lanesOf {
		for range n {
			l := &lane{to: p, class: class(c)}
			if db.config.Mode == Cluster {
				l.last = make(map[Tag]int)
			}
			p.lanes[c] = append(p.lanes[c], l)
		}
	}
	return p
}

// options are those of a client that repeats nothing, keeps to one address, and says so if it could not connect.
func (db *DB) options(addr string) *redis.Options {
	c := db.config
	o := &redis.Options{
		Addr: addr, Username: c.Username, Password: c.Password, DB: c.Database, TLSConfig: c.TLS, Protocol: 2,
		MaxRetries: -1, DialerRetries: 1, DisableIdentity: true, ContextTimeoutEnabled: true,
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout,
		PoolSize: poolSize, PipelinePoolSize: -1, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if planted.Is(planted.ClientRetries) {
		o.MaxRetries = 3
	}
	dial := redis.NewDialer(o)
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, &notSentError{err}
		}
		return conn, nil
	}
	return o
}

func (p *primary) close() error {
	if p.elsewhere != nil {
		_ = p.elsewhere.Close()
	}
	return errors.Join(p.plain.Close(), p.strict.Close())
}

// retire says that the primary is one no longer, and closes it when what was under way is over.
func (p *primary) retire() {
	p.db.running.Go(func() {
		idle := false
		for wait := time.Millisecond; !idle; wait = min(2*wait, 100*time.Millisecond) {
			idle = true
			for _, ls := range p.lanes {
				for _, l := range ls {
					idle = l.retire() && idle
				}
			}
			if !idle {
				time.Sleep(wait) // pipelines have a timeout, so this ends
			}
		}
		if err := p.close(); err != nil {
			p.db.config.Log.Warn("redis: a connection was not closed well", "address", p.addr, "error", err)
		}
	})
}

// refuses returns why a unit is not sent here.
func (p *primary) refuses(u *unit) error {
	if !u.write {
		return nil
	}
	s := p.standing.Load()
	if u.class == classWrite && s.weak != nil {
		return s.weak
	}
	if s.full && !u.frees {
		return errFull
	}
	return nil
}

// load brings the functions.
func (p *primary) load(ctx context.Context) error {
	p.loading.Lock()
	defer p.loading.Unlock()
	return load(ctx, p.plain)
}

func load(ctx context.Context, c redis.Cmdable) error {
	err := c.FunctionLoad(ctx, library).Err()
	switch {
	case err == nil || strings.Contains(err.Error(), "already exists"):
		return nil
	case strings.HasPrefix(err.Error(), "OOM"): // a server that is full refuses to look whether it has them
		have, asked := c.FunctionList(ctx, redis.FunctionListQuery{LibraryNamePattern: "carillon_" + version}).Result()
		if asked == nil && len(have) > 0 {
			return nil
		}
	}
	return fmt.Errorf("load the functions: %w", err)
}

// peek sends a pipeline of plain commands, behind the question who it is that answers.
func (p *primary) peek(l *pipeline) {
	db := p.db
	ctx := context.Background()
	pipe := p.plain.Pipeline()
	who := redis.NewRawCmd(ctx, fcall, functionRead, 0, db.now(), "")
	_ = pipe.Process(ctx, who)
	for i := range l.calls {
		c := &l.calls[i]
		for _, args := range c.units[0].plain {
			if c.asking {
				pipe.Do(ctx, "ASKING")
			}
			if c.units[0].texts {
				cmd := redis.NewStringSliceCmd(ctx, args...)
				c.texts = append(c.texts, cmd)
				_ = pipe.Process(ctx, cmd)
				continue
			}
			cmd := redis.NewRawCmd(ctx, args...)
			c.plain = append(c.plain, cmd)
			_ = pipe.Process(ctx, cmd)
		}
	}
	began := time.Now()
	_, _ = pipe.Exec(ctx) // each command has its own error
	db.config.Metrics.pipeline(l, time.Since(began))

	raw, err := who.Result()
	a, f, ok := callAnswer(raw, err, l.class, nil)
	if ok {
		p.hear(a)
	}
	for i := range l.calls {
		c := &l.calls[i]
		if ok {
			if f, ok := c.gatherPlain(a); !ok {
				db.config.Metrics.failed(f, 1)
				p.unanswered(c, f)
				continue
			}
			c.from[0].of.answered(1)
			continue
		}
		db.config.Metrics.failed(f, 1)
		p.unanswered(c, f)
	}
	if ok {
		err = nil
	}
	p.reached(err)
}

// callAnswer judges what one call was answered: ok if each unit has its answer.
func callAnswer(raw []byte, err error, c class, units []*unit) (a Answer, f fate, ok bool) {
	switch {
	case err != nil:
		return a, fateOfSending(err, c), false
	case len(raw) > 0 && raw[0] == '-':
		_, text, _ := line(raw, 0)
		return a, fateOf(string(text)), false
	}
	if a, ok = splitCall(raw, units); !ok {
		return a, fate{err: errReply}, false
	}
	return a, fate{}, true
}

// gatherPlain puts the replies to the commands of a unit together as a function would have.
func (c *call) gatherPlain(a Answer) (fate, bool) {
	u := c.units[0]
	if u.texts {
		return c.gatherTexts(a)
	}
	var b []byte
	for _, cmd := range c.plain {
		raw, err := cmd.Result()
		switch {
		case err != nil:
			return fateOfSending(err, classPeek), false
		case len(raw) > 0 && raw[0] == '-':
			_, text, _ := line(raw, 0)
			return fateOfPlain(string(text)), false
		case skip(raw, 0, 0) != len(raw):
			return fate{err: errReply}, false
		}
		if len(c.plain) == 1 {
			b = raw
			break
		}
		b = append(b, raw...)
	}
	u.raw, u.answer = string(b), a
	return fate{}, true
}

// gatherTexts is gatherPlain for a unit whose replies are lists of strings.
func (c *call) gatherTexts(a Answer) (fate, bool) {
	u := c.units[0]
	lists := make([][]string, 0, len(c.texts))
	for _, cmd := range c.texts {
		list, err := cmd.Result()
		var answer redis.Error
		switch {
		case errors.As(err, &answer):
			return fateOfPlain(answer.Error()), false
		case err != nil:
			return fateOfSending(err, classPeek), false
		}
		lists = append(lists, list)
	}
	u.lists, u.answer = lists, a
	return fate{}, true
}

// fateOfPlain judges the error that Redis answered a plain command with.
func fateOfPlain(text string) fate {
	if word, _, _ := strings.Cut(text, " "); word == "ERR" || word == "WRONGTYPE" {
		return fate{err: refused(text)}
	}
	return fateOf(text)
}

// send sends a pipeline, hears what comes back, and answers each unit or sees to it that it is tried again.
func (p *primary) send(l *pipeline) {
	db := p.db
	if l.class == classPeek {
		p.peek(l)
		return
	}
	m := db.config.Metrics
	ctx := context.Background() // what a caller waits for is not what others wait for
	client := p.plain
	var wait, flush bool
	if l.class == classWrite {
		client = p.strict
		wait = db.config.Durability == push.DurabilityReplicated && !planted.Is(planted.NoWait)
		flush = db.config.Durability != push.DurabilityDisk
	}
	pipe := client.Pipeline()
	for i := range l.calls {
		c := &l.calls[i]
		if c.asking {
			pipe.Do(ctx, "ASKING")
		}
		from := len(l.args)
		l.args = c.arguments(l.args, db)
		c.cmd = redis.NewRawCmd(ctx, l.args[from:]...)
		_ = pipe.Process(ctx, c.cmd)
	}
	var waited, flushed *redis.Cmd
	if wait && !planted.Is(planted.WaitElsewhere) {
		waited = pipe.Do(ctx, "WAIT", db.config.Replicas, db.config.Timeout.Milliseconds()*9/10)
	}
	if flush {
		flushed = pipe.Do(ctx, "INFO", "persistence")
	}
	began := time.Now()
	_, _ = pipe.Exec(ctx) // each command has its own error
	if wait && planted.Is(planted.WaitElsewhere) {
		waited = p.elsewhere.Do(ctx, "WAIT", db.config.Replicas, db.config.Timeout.Milliseconds()*9/10)
	}
	short := p.short(waited)
	if flush && short == nil {
		short = p.written(ctx, flushed, began.Add(db.config.Timeout))
	}
	m.pipeline(l, time.Since(began))
	if l.class == classWrite {
		failpoint.Hit(failpoint.RedisAnswered)
	}

	for i := range l.calls {
		c := &l.calls[i]
		raw, err := c.cmd.Result()
		p.reached(err)
		a, f, ok := callAnswer(raw, err, l.class, c.units)
		if ok {
			if i == 0 {
				p.hear(a)
			}
			p.answer(c, short)
			continue
		}
		if f.err == error(errFull) {
			p.isFull()
		}
		m.failed(f, len(c.units))
		p.unanswered(c, f)
	}
}

// short returns why what a pipeline wrote cannot be called replicated.
func (p *primary) short(waited *redis.Cmd) error {
	if waited == nil {
		return nil
	}
	n, err := waited.Int()
	switch {
	case err != nil:
		p.db.config.Metrics.short.Inc()
		return errUnknown(err)
	case n < p.db.config.Replicas:
		p.db.config.Metrics.short.Inc()
		return errShort(n, p.db.config.Replicas)
	}
	return nil
}

// written waits until what was executed before a reply to INFO is in the hands of the server's kernel, and returns why it may not be. With
// appendfsync everysec a server answers at once, but while a flush is under way, which may take seconds, it holds back what it would write to the
// file; whoever kills it then loses what was answered. It writes everything out at the end of each round in which no flush is under
// way, before it answers, and holds nothing back if the buffer is empty: that is asked for behind the writes, and again until it is so.
func (p *primary) written(ctx context.Context, reply *redis.Cmd, until time.Time) error {
	for wait := 500 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		text, err := reply.Text()
		if err != nil {
			return errUnknown(err)
		}
		// Whoever vouches for settings that are hidden may have no such file at all.
		if infoField(text, "aof_enabled") != "1" || infoField(text, "aof_pending_bio_fsync") == "0" || infoField(text, "aof_buffer_length") == "0" {
			return nil
		}
		p.db.config.Metrics.held.Inc()
		if time.Now().After(until) {
			return errUnknown(errHeld)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-p.db.closing:
			t.Stop()
			return errUnknown(errHeld)
		}
		reply = p.strict.Do(ctx, "INFO", "persistence")
	}
}

var errHeld = errors.New("the server has not written it to its file")

// infoField returns a value of what INFO says, empty if it says nothing.
func infoField(text, name string) string {
	_, rest, ok := strings.Cut(text, "\n"+name+":")
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// answer gives the units of a call what the function said, those that had to be replicated and are not an error.
func (p *primary) answer(c *call, short error) {
	for i, u := range c.units {
		if short != nil && (u.kept || u.write && u.done()) {
			u.answer.Err = short
		}
		c.from[i].of.answered(1)
	}
}

// unanswered sees to the units of a call that the function did not answer.
func (p *primary) unanswered(c *call, f fate) {
	if !f.again {
		if f.learn {
			p.db.relearn()
		}
		for i, u := range c.units {
			c.from[i].answer(u, f.err)
		}
		return
	}
	f.from = p
	if f.movedTo != "" {
		f.movedTo = sameHost(f.movedTo, p.addr)
	}
	if f.asking != "" {
		f.asking = sameHost(f.asking, p.addr)
	}
	// One batch for each that they came in, so that each keeps its deadline.
	for len(c.units) > 0 {
		b := &batch{of: c.from[0].of, until: c.from[0].until, since: c.from[0].since, tries: c.from[0].tries + 1}
		k := 0
		for i, u := range c.units {
			if c.from[i].of == b.of {
				b.units = append(b.units, u)
				continue
			}
			c.units[k], c.from[k] = u, c.from[i]
			k++
		}
		c.units, c.from = c.units[:k], c.from[:k]
		p.db.again(b, f)
	}
}

// sameHost completes an address that names no host: that of whoever named it.
func sameHost(addr, of string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "" {
		return addr
	}
	host, _, err = net.SplitHostPort(of)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(host, port)
}
