package redisdb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"carillon/server/push"

	"github.com/redis/go-redis/v9"
)

var errNobody = errors.New("no server of the cluster has the slot")

// comeBack is when to come back if nothing better is known.
const comeBack = time.Second

func errClosed() error { return push.Errorf(push.KindClosed, "closed", "the store is closed") }

// unavailable is the error of what cannot be had now. With store_unavailable the outcome of a write is unknown.
func unavailable(code string, err error) error {
	return &push.Error{Kind: push.KindUnavailable, Code: code, After: comeBack, Err: err}
}

func errUnknown(err error) error { return unavailable("store_unavailable", err) }

// errShort is the error of what fewer replicas have than are asked for. The primary has it, so that its outcome is unknown.
func errShort(have, want int) error {
	return &push.Error{Kind: push.KindUnavailable, Code: "store_short", After: comeBack,
		Detail: fmt.Sprintf("%d of the %d replicas that were asked for have confirmed it; it may still be kept", have, want)}
}

// errOpen is why the store cannot be opened: of KindInvalid if trying again changes nothing.
func errOpen(err error) error {
	var e *push.Error
	switch {
	case errors.As(err, &e):
		return err
	case isFinal(err):
		return &push.Error{Kind: push.KindInvalid, Code: "store_refused", Err: err}
	}
	return errUnknown(err)
}

// isFinal reports whether a server answered what it answers each time: that the credentials are wrong, that it knows nothing of what it is asked
// for or does not let us have it; or whether it showed a certificate that does not hold.
func isFinal(err error) bool {
	var notSent *notSentError
	if errors.As(err, &notSent) {
		var certificate *tls.CertificateVerificationError
		return errors.As(notSent.err, &certificate)
	}
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	word, rest, _ := strings.Cut(answer.Error(), " ")
	switch word {
	case "NOAUTH", "WRONGPASS", "NOPERM", "DENIED":
		return true
	case "ERR":
		return !strings.HasPrefix(rest, "max number of clients")
	}
	return false
}

var (
	errFull = &push.Error{Kind: push.KindUnavailable, Code: "store_full", After: 10 * time.Second,
		Detail: "the store is nearly full and takes nothing more until devices have fetched what waits for them, it expires, or the store is given more memory"}
	errBusy = &push.Error{Kind: push.KindUnavailable, Code: "store_busy", After: comeBack,
		Detail: "more is waiting for the store than may wait"}
)

// refused is the error of a unit whose command Redis refused for what it is: a bug of ours, or somebody else's data under our keys. The text names
// the command, never values.
func refused(text string) error {
	text, _, _ = strings.Cut(firstLine(text), ", with args")
	return &push.Error{Kind: push.KindInternal, Code: "store_command", Detail: "a command was refused", Err: errors.New(text)}
}

// notSentError is why nothing was sent: there is no connection. It does not unwrap, as the client takes errors of connecting apart.
type notSentError struct{ err error }

func (e *notSentError) Error() string { return e.err.Error() }

// weakError is why a connection is not used for writes: the server's settings keep less than what is asked for.
type weakError struct{ err *push.Error }

func (e *weakError) Error() string { return e.err.Error() }

// fate is what is to become of the units of a call that was not answered.
type fate struct {
	again bool // they surely were not executed, and may be tried again
	err   error

	// With again.
	now      bool   // at once
	moves    bool   // because a slot is moving, for which one waits longer
	learn    bool   // the layout may be another
	load     bool   // the functions are not there
	asking   string // address of a node that takes it if it is told that it was asked for
	movedTo  string // address of the node that has the slot now
	movedNum int    // the slot
	replica  bool   // the node says that it takes no writes
	from     *primary
}

// fateOf judges the error that Redis answered a call with. All of these are given before a function begins; anything else may come out of the
// middle of one.
func fateOf(text string) fate {
	word, rest, _ := strings.Cut(text, " ")
	err := unavailable("store_unavailable", errors.New(firstLine(text)))
	switch word {
	case "MOVED", "ASK":
		num, addr, _ := strings.Cut(rest, " ")
		n := number(num)
		if n < 0 || n >= slots || addr == "" {
			return fate{err: errReply}
		}
		if word == "ASK" {
			return fate{again: true, now: true, moves: true, asking: addr, err: err}
		}
		return fate{again: true, now: true, moves: true, learn: true, movedTo: addr, movedNum: n, err: err}
	case "TRYAGAIN":
		return fate{again: true, moves: true, err: err}
	case "READONLY":
		return fate{again: true, learn: true, replica: true, err: err}
	case "CLUSTERDOWN", "MASTERDOWN":
		return fate{again: true, learn: true, err: err}
	case "LOADING", "BUSY", "NOREPLICAS", "MISCONF":
		return fate{again: true, err: err}
	case "OOM":
		return fate{err: errFull}
	case "NOAUTH", "NOPERM", "WRONGPASS":
		return fate{err: err}
	case "ERR":
		if strings.HasPrefix(rest, "Function not found") {
			return fate{again: true, now: true, load: true, err: err}
		}
	}
	return fate{err: err}
}

// fateOfSending judges what went wrong between us and Redis.
func fateOfSending(err error, c class) fate {
	var notSent *notSentError
	var weak *weakError
	var network net.Error
	switch {
	case errors.As(err, &weak):
		return fate{err: weak.err}
	case errors.As(err, &notSent):
		return fate{again: true, learn: true, err: errUnknown(err)}
	case (c == classRead || c == classPeek) && !errors.Is(err, context.DeadlineExceeded) && !(errors.As(err, &network) && network.Timeout()):
		return fate{again: true, learn: true, err: errUnknown(err)} // nothing changes if it is read twice
	}
	return fate{learn: true, err: errUnknown(err)}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s[:min(len(s), 200)]
}
