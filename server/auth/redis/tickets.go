// Package redis keeps one-time tickets on Redis, for all nodes of a cluster: a load balancer may send the stream to another node than
// the one that gave the ticket.
//
// # Layout
//
// Tags "tickets0" to "tickets63", by device; a ticket's first character says which.
//
//	{tickets7} t:<SHA-256 of the ticket>   when it ends, in decimal milliseconds, a space, and the token, sealed
//	{tickets7} d:<SHA-256 of the device>   the hashes of its latest tickets, the oldest first
//
// # Invariants
//
//   - Whoever reads Redis, its file or its replicas learns neither a ticket nor a token: the token is sealed by a key that is made of the
//     ticket, and of the ticket there is a hash.
//   - A ticket is redeemed by who removed it, which one caller does. The store's clock judges its end; Redis forgets it by itself.
//   - A device has a few at most, of which the oldest gives way.
package redis

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"carillon/server/auth"
	"carillon/server/push"
	"carillon/server/redisdb"
)

// Config of Tickets.
type Config struct {
	DB        *redisdb.DB // stays open
	Rand      io.Reader   // crypto/rand if nil
	PerDevice int         // tickets of one device; 0 means 4
}

// Tickets is an auth.TicketStore. It has no state of its own, and nothing that needs closing.
type Tickets struct{ conf Config }

var _ auth.TicketStore = (*Tickets)(nil)

// New returns the tickets that lie in a database.
func New(c Config) (*Tickets, error) {
	if c.DB == nil || c.PerDevice < 0 {
		return nil, errors.New("auth: tickets need a database, and a limit that is not negative")
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.PerDevice == 0 {
		c.PerDevice = 4
	}
	return &Tickets{c}, nil
}

// parts are the first characters of tickets, by the number of their tag.
const parts = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func tagOf(text string) redisdb.Tag {
	return redisdb.Tag("tickets" + strconv.Itoa(strings.IndexByte(parts, text[0])))
}

// hashOf returns the SHA-256 of strings, each with its length before it.
func hashOf(ss ...string) string {
	h := sha256.New()
	for _, s := range ss {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return string(h.Sum(nil))
}

// seal returns what seals the token of a ticket. There is one text for one key, so its nonce may be constant.
func seal(text string) (cipher.AEAD, []byte, error) {
	key, err := hkdf.Key(sha256.New, []byte(text), nil, "carillon ticket 1", 32)
	if err != nil {
		return nil, nil, fmt.Errorf("auth: ticket: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, fmt.Errorf("auth: ticket: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, nil, fmt.Errorf("auth: ticket: %w", err)
	}
	return aead, make([]byte, aead.NonceSize()), nil
}

// attempts bounds how often an issue begins again since the same device was faster elsewhere.
const attempts = 8

// Issue implements [auth.TicketStore]. Its write waits for no replica: a ticket that a failover takes back is asked for again.
func (t *Tickets) Issue(ctx context.Context, id auth.Identity, token string) (string, error) {
	text, err := auth.NewTicket(t.conf.Rand)
	if err != nil {
		return "", err
	}
	device := hashOf(string(id.Product.ID), string(id.User), string(id.Device))
	text = parts[device[0]%64:][:1] + text[1:]
	aead, nonce, err := seal(text)
	if err != nil {
		return "", err
	}
	sealed := string(aead.Seal(nil, nonce, []byte(token), nil))
	tag, hash := tagOf(text), hashOf(text)
	latest := tag.Key("d", device)
	for range attempts {
		r := &redisdb.Read{Tag: tag, Do: []redisdb.Command{{Name: "GET", Key: latest}}}
		if t.conf.DB.Read(ctx, r); r.Err != nil {
			return "", fmt.Errorf("auth: issue ticket: %w", r.Err)
		}
		// With full memory too: who connects drains what fills it, and a ticket is small and gone within a minute.
		w := &redisdb.Write{Tag: tag, If: []redisdb.Condition{redisdb.IfValue(latest, r.Replies[0])}, Lax: true, Frees: true}
		known, _ := r.Replies[0].(string)
		for ; len(known) >= t.conf.PerDevice*sha256.Size; known = known[sha256.Size:] {
			w.Do = append(w.Do, redisdb.Command{Name: "DEL", Key: tag.Key("t", known[:sha256.Size])})
		}
		life := auth.TicketLife.Milliseconds()
		value := strconv.FormatInt(int64(r.Now)+life, 10) + " " + sealed
		w.Do = append(w.Do,
			redisdb.Command{Name: "SET", Key: latest, Args: []any{known + hash, "PX", life}},
			redisdb.Command{Name: "SET", Key: tag.Key("t", hash), Args: []any{value, "PX", life}})
		if t.conf.DB.Write(ctx, w); w.Err != nil {
			return "", fmt.Errorf("auth: issue ticket: %w", w.Err)
		}
		if w.Done {
			return text, nil
		}
	}
	return "", &push.Error{
		Kind: push.KindLimited, Code: auth.CodeLimited, Detail: "this device asks for many tickets at once; ask again later",
	}
}

// Redeem implements [auth.TicketStore]: of those who read a ticket, the one who removes it has it. That is as durable as a message, so that a
// failover does not bring back what was redeemed.
func (t *Tickets) Redeem(ctx context.Context, text string) (token string, ok bool, err error) {
	if !auth.IsTicket(text) {
		return "", false, nil
	}
	tag := tagOf(text)
	key := tag.Key("t", hashOf(text))
	r := &redisdb.Read{Tag: tag, Do: []redisdb.Command{{Name: "GET", Key: key}}}
	if t.conf.DB.Read(ctx, r); r.Err != nil {
		return "", false, fmt.Errorf("auth: redeem ticket: %w", r.Err)
	}
	value, is := r.Replies[0].(string)
	if !is {
		return "", false, nil
	}
	w := &redisdb.Write{
		Tag: tag, If: []redisdb.Condition{redisdb.IfValue(key, value)}, Do: []redisdb.Command{{Name: "DEL", Key: key}}, Frees: true,
	}
	if t.conf.DB.Write(ctx, w); w.Err != nil {
		return "", false, fmt.Errorf("auth: redeem ticket: %w", w.Err)
	}
	ends, sealed, _ := strings.Cut(value, " ")
	until, err := strconv.ParseInt(ends, 10, 64)
	if err != nil {
		return "", false, push.Errorf(push.KindInternal, "ticket_damaged", "a stored ticket is damaged")
	}
	if !w.Done || int64(r.Now) >= until {
		return "", false, nil
	}
	aead, nonce, err := seal(text)
	if err != nil {
		return "", false, err
	}
	plain, err := aead.Open(nil, nonce, []byte(sealed), nil)
	if err != nil {
		return "", false, push.Errorf(push.KindInternal, "ticket_damaged", "a stored ticket is damaged")
	}
	return string(plain), true, nil
}
