package redisdb

import (
	"fmt"
	"strconv"

	"carillon/server/push"
)

// Command is one Redis command on one key.
type Command struct {
	Name string
	Key  string
	Args []any // strings, byte slices, ints
}

// Announce returns the command that tells rooms of an append to a user's slot, in the step of the append: the change is
// added to the log of each room that has a session of the user. Its reply is the names of those rooms.
func (t Tag) Announce(u push.UserID, change []byte) Command {
	return Command{Name: announce, Key: t.SessionsKey(u), Args: []any{t.ChangesKey(""), ChangesKept, changesIdle.Milliseconds(), change}}
}

const announce = "!"

// Read asks for several replies that belong to one moment.
type Read struct {
	Tag Tag
	Do  []Command // that change nothing

	// The answer.
	Replies []any // by command, as Redis answers: nil, int64, string, []any
	Answer
}

// Write is a change that happens whole or not at all: if all of If holds, all of Do is done, in one step.
type Write struct {
	Tag   Tag
	Under push.Lineage // the lineage under which it was made; 0: any
	If    []Condition
	Do    []Command
	Frees bool // it only overwrites or frees, and is let through when memory is full
	Lax   bool // its loss in a failover harms nothing: it does not wait for replicas

	// The answer.
	Done    bool  // false without an error: what it was made from is no longer so
	Replies []any // by command, if done
	Answer
}

// Answer is what every reply carries.
type Answer struct {
	Lineage push.Lineage
	Now     push.MilliTime // by the store's clock
	Err     error          // KindUnavailable: for a Write, nobody knows whether it was done
}

// Condition says what a value has to be: that of a key of its own, or of a field of a hash.
type Condition struct {
	Key    string
	Hash   bool
	Field  string // with Hash
	Absent bool   // there must be none
	Value  string // otherwise
}

// IfValue and IfField return the condition that a value is still what a read returned: nil for none.
func IfValue(key string, was any) Condition { return condition(Condition{Key: key}, was) }

// IfField is IfValue for a field of a hash.
func IfField(key, field string, was any) Condition {
	return condition(Condition{Key: key, Hash: true, Field: field}, was)
}

func condition(c Condition, was any) Condition {
	if v, ok := was.(string); ok {
		c.Value = v
	} else {
		c.Absent = true
	}
	return c
}

// call is one call of a function: some reads, or some writes.
type call struct {
	function string
	keys     []string
	args     []any
	size     int // of keys and arguments, about

	reads  []*Read
	writes []*Write
}

// The most units of one call, and the most bytes of one that has several: so that no call keeps the others waiting for long.
const (
	callUnits = 64
	callBytes = 256 << 10
)

func (c *call) begin(function, now string) {
	c.function = function
	c.args = append(c.args, now, 0)
}

func (c *call) full() bool { return len(c.reads)+len(c.writes) >= callUnits || c.size >= callBytes }

func (c *call) key(k string) int {
	c.keys = append(c.keys, k)
	c.size += len(k) + 8
	return len(c.keys)
}

func (c *call) arg(as ...any) {
	for _, a := range as {
		switch a := a.(type) {
		case string:
			c.size += len(a)
		case []byte:
			c.size += len(a)
		}
		c.size += 8
	}
	c.args = append(c.args, as...)
}

func (c *call) command(d *Command) {
	if d.Name == announce {
		c.arg(announce, c.key(d.Key))
	} else {
		c.arg(d.Name, c.key(d.Key), len(d.Args))
	}
	c.arg(d.Args...)
}

// read adds a read.
func (c *call) read(r *Read) {
	c.reads = append(c.reads, r)
	c.args[1] = c.args[1].(int) + len(r.Do)
	for i := range r.Do {
		c.command(&r.Do[i])
	}
}

// write adds a write.
func (c *call) write(w *Write) {
	c.writes = append(c.writes, w)
	c.args[1] = len(c.writes)
	at := len(c.args)
	c.arg(underOf(w.Under), 0, len(w.If))
	for i := range w.If {
		d := &w.If[i]
		field := ""
		if d.Hash {
			field = "." + d.Field
		}
		if c.arg(c.key(d.Key), field); d.Absent {
			c.arg("0")
		} else {
			c.arg("1", d.Value)
		}
	}
	c.arg(len(w.Do))
	for i := range w.Do {
		c.command(&w.Do[i])
	}
	c.args[at+1] = len(c.args) - at
}

// fail gives every unit of the call the same error.
func (c *call) fail(err error) {
	for _, r := range c.reads {
		r.Err = err
	}
	for _, w := range c.writes {
		w.Err = err
	}
}

// answer gives each unit its part of the reply.
func (c *call) answer(reply any) {
	parts, ok := reply.([]any)
	if !ok || len(parts) != 3 {
		c.fail(errReply)
		return
	}
	a := Answer{}
	digits, ok1 := parts[0].(string)
	lineage, err1 := strconv.ParseUint(digits, 16, 63)
	millis, ok2 := parts[1].(string)
	now, err2 := strconv.ParseInt(millis, 10, 64)
	units, ok3 := parts[2].([]any)
	want := len(c.writes)
	for _, r := range c.reads {
		want += len(r.Do)
	}
	if !ok1 || !ok2 || !ok3 || err1 != nil || err2 != nil || len(units) != want {
		c.fail(errReply)
		return
	}
	a.Lineage, a.Now = push.Lineage(max(lineage, 1)), push.MilliTime(now)
	for _, r := range c.reads {
		r.Answer, r.Replies, units = a, units[:len(r.Do):len(r.Do)], units[len(r.Do):]
	}
	for i, w := range c.writes {
		w.Answer = a
		w.Replies, w.Done = units[i].([]any)
	}
}

var errReply = push.Errorf(push.KindInternal, "redis_reply", "a function of ours answered something else than it does")

// underOf returns a lineage as the functions compare it.
func underOf(l push.Lineage) string {
	if l == 0 {
		return ""
	}
	return fmt.Sprintf("%015x", uint64(l))
}
