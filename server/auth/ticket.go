package auth

import (
	"container/list"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
)

// TicketLife is how long a ticket may be redeemed.
const TicketLife = 30 * time.Second

// TicketStore keeps tickets, on one node ([Tickets]) or for all nodes of a cluster. A ticket stands for its token once, for TicketLife, and
// whoever redeemed it judges the token anew. Implementations are safe for concurrent use.
type TicketStore interface {
	// Issue returns a ticket for a token that was verified: id is what Verify said. KindLimited, "limited": there are too many; some will
	// be gone soon. KindUnavailable: it could not be kept.
	Issue(ctx context.Context, id Identity, token string) (string, error)
	// Redeem returns the token that a ticket stands for, and ends the ticket; ok is false if it is none, was redeemed, or has expired. After
	// an error nobody knows whether it still holds, and the device asks for another.
	Redeem(ctx context.Context, text string) (token string, ok bool, err error)
}

// CodeLimited is the code of who has to wait.
const CodeLimited = "limited"

// TicketConfig says how tickets are kept. Its zero value is useful.
type TicketConfig struct {
	Clock     clock.Clock // clock.System if nil
	Rand      io.Reader   // crypto/rand if nil
	Most      int         // tickets at a time; 0 means 100 000
	MostBytes int         // of the tokens that they stand for; 0 means 64 MiB
	PerDevice int         // of one device, of which the oldest gives way; 0 means 4
}

// Tickets keeps tickets in the memory of one node. They stand for device tokens, once each and for half a minute, so that a browser's EventSource, which can send no
// header, has something to put into a URL that is worth nothing to whoever reads it in a log.
//
// A ticket is 256 random bits. What is kept is its SHA-256 beside the token: a look at the memory of the node does not tell
// which tickets are good, and a look-up takes its course by the hash of what was shown, which tells whoever measures it
// nothing about what there is. The token is judged anew when the ticket was redeemed, by whoever redeemed it.
//
// All methods are safe for concurrent use. There is no goroutine: what has expired goes when another ticket is asked for, and
// is bounded until then.
type Tickets struct {
	// Static after construction.
	clock clock.Clock
	conf  TicketConfig

	mu      sync.Mutex // guards all below
	tickets map[ticketHash]*list.Element
	byAge   *list.List                       // of *ticket, the oldest first; all live equally long, so that is the order of their ends too
	devices map[ticketDevice][]*list.Element // the oldest first
	bytes   int
}

type ticketHash [sha256.Size]byte

type ticketDevice struct {
	product push.ProductID
	user    push.UserID
	device  push.DeviceID
}

type ticket struct {
	hash   ticketHash
	device ticketDevice
	token  string
	ends   time.Time
}

const (
	ticketBytes = 32
	ticketChars = 43
)

var ticketEncoding = base64.RawURLEncoding.Strict() // one text for one ticket

// NewTickets returns a keeper of tickets.
func NewTickets(c TicketConfig) (*Tickets, error) {
	if c.Most < 0 || c.MostBytes < 0 || c.PerDevice < 0 {
		return nil, errors.New("auth: limits of tickets are not negative")
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Most == 0 {
		c.Most = 100_000
	}
	if c.MostBytes == 0 {
		c.MostBytes = 64 << 20
	}
	if c.PerDevice == 0 {
		c.PerDevice = 4
	}
	return &Tickets{
		clock: c.Clock, conf: c, tickets: make(map[ticketHash]*list.Element), byAge: list.New(),
		devices: make(map[ticketDevice][]*list.Element),
	}, nil
}

var _ TicketStore = (*Tickets)(nil)

// Issue implements [TicketStore].
func (t *Tickets) Issue(_ context.Context, id Identity, token string) (string, error) {
	text, err := NewTicket(t.conf.Rand)
	if err != nil {
		return "", err
	}
	now := t.clock.Now()
	n := &ticket{
		hash: sha256.Sum256([]byte(text)), device: ticketDevice{id.Product.ID, id.User, id.Device},
		token: strings.Clone(token), // what was given is a piece of a header
		ends:  now.Add(TicketLife),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	if of := t.devices[n.device]; len(of) >= t.conf.PerDevice {
		t.removeLocked(of[0])
	}
	if len(t.tickets) >= t.conf.Most || t.bytes+len(token) > t.conf.MostBytes {
		return "", &push.Error{
			Kind: push.KindLimited, Code: CodeLimited, Detail: "too many tickets were asked for; ask again later", After: time.Second,
		}
	}
	e := t.byAge.PushBack(n)
	t.tickets[n.hash] = e
	t.devices[n.device] = append(t.devices[n.device], e)
	t.bytes += len(token)
	return text, nil
}

// Redeem implements [TicketStore]. It never fails.
func (t *Tickets) Redeem(_ context.Context, text string) (token string, ok bool, _ error) {
	if !IsTicket(text) {
		return "", false, nil
	}
	hash := ticketHash(sha256.Sum256([]byte(text)))
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.tickets[hash]
	if e == nil {
		return "", false, nil
	}
	t.removeLocked(e)
	found := e.Value.(*ticket)
	if !now.Before(found.ends) {
		return "", false, nil
	}
	return found.token, true, nil
}

// NewTicket returns the text of a ticket: 256 bits that nobody can guess, in 43 characters that stand in a URL as they are.
func NewTicket(random io.Reader) (string, error) {
	var secret [ticketBytes]byte
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return "", fmt.Errorf("auth: make a ticket: %w", err)
	}
	return ticketEncoding.EncodeToString(secret[:]), nil
}

// IsTicket reports whether the text has the form of one, so that nothing large is hashed.
func IsTicket(text string) bool {
	if len(text) != ticketChars {
		return false
	}
	var in [ticketChars]byte
	copy(in[:], text)
	var out [ticketBytes + 1]byte // one more than is needed: the decoder judges the space before it knows the length
	n, err := ticketEncoding.Decode(out[:], in[:])
	return err == nil && n == ticketBytes
}

func (t *Tickets) expireLocked(now time.Time) {
	for e := t.byAge.Front(); e != nil && !now.Before(e.Value.(*ticket).ends); e = t.byAge.Front() {
		t.removeLocked(e)
	}
}

func (t *Tickets) removeLocked(e *list.Element) {
	n := t.byAge.Remove(e).(*ticket)
	delete(t.tickets, n.hash)
	t.bytes -= len(n.token)
	of := t.devices[n.device]
	if len(of) == 1 {
		delete(t.devices, n.device)
		return
	}
	rest := make([]*list.Element, 0, len(of)-1) // a few at most
	for _, other := range of {
		if other != e {
			rest = append(rest, other)
		}
	}
	t.devices[n.device] = rest
}

// Count returns how many tickets are kept.
func (t *Tickets) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.tickets)
}
