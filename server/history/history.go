// Package history records what publishers and devices saw, and judges it afterwards: was anything lost, invented, doubled,
// reordered? Crash tests and fault injection rest on it.
//
// # Use
//
// Every process writes its operations to a [Log], in its own order: a publisher invokes before it sends and notes the outcome
// after; a device notes a delivery before it acknowledges it. When the system has come to rest (everything accepted had the
// time to arrive), [Check] is given all records and returns every violation of the promise that it finds.
//
// # Rules
//
//	lost         a message that was accepted, persistent, not recalled, expired, collapsed or named by a gap did not reach a device of
//	             its audience
//	phantom      a delivery of something nobody sent, to somebody it was not for, of another product, or with another body
//	duplicate    the application of a device saw the same message twice
//	order        a device saw two messages of one sender to one slot in another order than they were sent one after the other (those
//	             of one batch are sent at once),
//	             or two devices of a user disagree about the order of a slot
//	hole         a device acknowledged a position of a slot below which it had not handled a message meant for it
//	position     one position of a slot held two messages
//	idempotency  two messages with different ids came from one idempotency key, or a key was refused that was not used otherwise
//	ids          one id names two messages
//	isolation    an acknowledgement moved another device's cursor, or a cursor moved without one
//	live         a message that is not persistent lay in a slot, or came later than to those who were online
//	expired      a message came after its time
//	reset        a device was told that its slot's state was lost, which it was not
//	kick         a session that another of the same device had replaced, or that had to go, for one of the same user or since its product
//	             ended it, got something more
//	session      a device had two live sessions
//	tags         a set of tags is at rest another than the one that was answered last
//	task         the message of a task lies in a user's slot twice, or not at all though it is completed, or though it was taken back, or came there after the task was
//	             stopped
//	counts       what is told of a task is not what lies in the slots, or its parts do not add up
//
// A message to tags is for a device by the tags that it has when it comes to the message. When that was nobody knows: so what has to reach a
// device is what it had the tags for all the time, and what may not reach it is what it never had them for.
//
// What a store lost of which it says so (a failover to a replica that lagged: [Lost]) excuses what was in it, and nothing else.
//
// It goes through the records, in the order of their times, a few times, and holds some hundred bytes for each message and some tens for each
// record of a device: ten million records take half a minute and two GB (BenchmarkCheck). Time grows as n log n, but that a message to tags costs
// at each device as much as the tags of its user were changed, and a loss, or a stall, a glance at some of the records. Nothing here
// knows how the system works inside.
package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Kind says what a record is.
type Kind string

// The kinds of records.
const (
	Invoke  Kind = "invoke"  // a publisher is about to send: Sender, Seq, Key, Product, an audience, Body, Persistent, Collapse, TTL
	OK      Kind = "ok"      // it was accepted: Sender, Seq, ID
	Fail    Kind = "fail"    // it was refused for good: Sender, Seq, Code
	Unknown Kind = "unknown" // no answer, or a 5xx: Sender, Seq
	Recall  Kind = "recall"  // the sender takes ID back
	Online  Kind = "online"  // a session of a device was welcomed: Device, Session, Begins
	Off     Kind = "off"     // a session of a device had to go, for another of its user or since its product ended it: Device, Session
	Deliver Kind = "deliver" // a device's application saw a message: Device, Session, ID, Body, Slot, Pos
	Peek    Kind = "peek"    // a device to which nothing is owed, since it breaks rules, saw a message, as Deliver
	Ack     Kind = "ack"     // a device acknowledged Slot up to Pos: Device
	Gap     Kind = "gap"     // a device was told of a gap in Slot: Device, Reset
	Crash   Kind = "crash"   // a device's application saw ID and died before it noted that: it may see it again
	Forget  Kind = "forget"  // a device lost its storage: it may see again whatever it saw
	Ended   Kind = "ended"   // every session ended with its process, and what was not flushed was lost: a number of one that was not welcomed may come again
	Stall   Kind = "stall"   // Device (every one, if it is zero) took nothing from Since to At: what came to it then came late
	Lost    Kind = "lost"    // at At the store lost what it took since Since: all of it, or of Product the slots of To or Everyone; see Throughout
	Stored  Kind = "stored"  // at rest, the server's idea of a device's cursor: Device, Slot, Pos
	Live    Kind = "live"    // while nothing was moving, Device had Count live sessions

	TagAsk    Kind = "tag"    // a set of tags is to be Tags: Device (without a device, the user's), Set, Seq
	TagAnswer Kind = "tagged" // it was: Device, Set, Seq
	TagRest   Kind = "tags"   // at rest it is Tags: Device, Set

	// A task is sent as any message is, and has its id.
	MoveAsk    Kind = "move"  // somebody is about to make a move of a task: ID, Code, which is its name
	MoveAnswer Kind = "moved" // it was answered: ID, Code
	Held       Kind = "held"  // the own slot of a user (Device, without a device) holds the message of a task Count times: ID. The last one of a user is at rest
	Told       Kind = "told"  // at rest, what is told of a task: ID, Code, which is its state, Counts
)

// The states of a task that the rules know.
const (
	Completed = "completed"
	Stopped   = "stopped"
)

// What Record.Counts counts of a task: users, and devices. Audience is the sum of those behind it.
const (
	Users        = "users" // all that it is for
	Written      = "written"
	TakenBack    = "taken_back"
	Audience     = "audience"
	Waiting      = "waiting"
	InFlight     = "in_flight"
	Acknowledged = "acknowledged"
	Expired      = "expired"
	Recalled     = "recalled"
	Dropped      = "dropped"
	Unaccounted  = "unaccounted"
)

var parts = []string{Waiting, InFlight, Acknowledged, Expired, Recalled, Dropped, Unaccounted}

// Device names a device, its user and, where there are several, its product.
type Device struct {
	User    string `json:"user"`
	Device  string `json:"device"`
	Product string `json:"product,omitempty"`
}

// Where a session begins in a slot, as welcome says; see Record.Begins.
const (
	FromStart = "beginning"
	FromHead  = "head"
)

// Record is one operation. Which fields it needs is said at its kind.
type Record struct {
	At         time.Duration `json:"at"` // since a moment that all processes of a run share, monotonic
	Kind       Kind          `json:"kind"`
	Product    string        `json:"product,omitempty"`
	Sender     string        `json:"sender,omitempty"`
	Seq        int           `json:"seq,omitempty"` // of a message; a sender sends the next, or the next batch, after it knows the outcome of the last
	Key        string        `json:"key,omitempty"` // within the product
	ID         string        `json:"id,omitempty"`
	To         []string      `json:"to,omitempty"`      // users
	Devices    []Device      `json:"devices,omitempty"` // some devices of users
	Everyone   bool          `json:"everyone,omitempty"`
	Having     *Having       `json:"having,omitempty"` // with Everyone: only devices with such tags
	Persistent bool          `json:"persistent,omitempty"`
	Body       string        `json:"body,omitempty"` // or a hash of it
	Collapse   string        `json:"collapse,omitempty"`
	TTL        time.Duration `json:"ttl,omitempty"` // 0: longer than the run
	Code       string        `json:"code,omitempty"`
	Device     Device        `json:"device,omitzero"`
	Session    uint64        `json:"session,omitempty"` // its epoch
	Begins     [2]string     `json:"begins,omitzero"`   // by slot: FromStart, FromHead or anything else
	Slot       int           `json:"slot,omitempty"`
	Pos        uint64        `json:"pos,omitempty"`
	Reset      bool          `json:"reset,omitempty"` // of a gap: the slot's state was lost, and what is retained comes again
	Since      time.Duration `json:"since,omitempty"`
	Throughout bool          `json:"throughout,omitempty"` // of a loss: it may have come at any moment from Since to At, and more than once
	Count      int           `json:"count,omitempty"`
	Set        string        `json:"set,omitempty"` // which of a device's sets of tags
	Tags       []string      `json:"tags,omitempty"`

	Counts map[string]int64 `json:"counts,omitempty"` // not to be changed after it was noted
}

// Having says which devices an audience by tags is for: those that have all of All, one of Any (if it names any) and none of Not.
type Having struct {
	All []string `json:"all,omitempty"`
	Any []string `json:"any,omitempty"`
	Not []string `json:"not,omitempty"`
}

// TokenSet names the tags of a device's token, asked for and answered as those of other sets are.
const TokenSet = "token"

// Write writes records as lines of JSON.
func Write(w io.Writer, records Seq) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	for r := range records {
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	return b.Flush()
}

// Read reads what Write wrote. A cut last line, as a killed process leaves it, is passed over.
func Read(r io.Reader) ([]Record, error) {
	var rs []Record
	dec := json.NewDecoder(r)
	for {
		var rec Record
		err := dec.Decode(&rec)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return rs, nil
		}
		if err != nil {
			return rs, fmt.Errorf("history: record %d: %w", len(rs)+1, err)
		}
		rs = append(rs, rec)
	}
}
