package redisdb

import (
	"carillon/server/push"
)

// Command is one Redis command on one key.
type Command struct {
	Name string
	Key  string
	Args []any // strings, byte slices, pointers to either, ints
	// Tell says, of a command in a write, that its reply is wanted. Without it there is none, which costs less; announcements and
	// the commands of a read have theirs anyhow.
	Tell bool

	log *logArgs // of an announcement, or of a question to a log
}

// tells reports whether there is a reply to the command.
func (c *Command) tells(write bool) bool { return !write || c.Tell || c.log != nil }

// Read asks for several replies that belong to one moment.
type Read struct {
	Tag Tag
	Do  []Command // that change nothing
	// Kept says that others will be told of what it returns as if it had been written here: it is answered when that survives what a
	// write survives. Without it, what was read may still be lost with the primary.
	Kept bool
	// Texts says that each reply is a list of strings. It comes as a []string then, empty for what is not there: a string is one piece of
	// memory, and holds on to nothing else. For Peek alone.
	Texts bool

	// The answer.
	Replies []any // by command, as Redis answers: nil, int64, string, []any; room that is there before is used
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
	Replies []any // by command, if done, nil where that does not tell; room that is there before is used
	Answer
}

// Answer is what every reply carries.
type Answer struct {
	Lineage push.Lineage
	Now     push.MilliTime // by the store's clock
	// Err is of KindUnavailable if nobody knows whether a write was done (store_unavailable; store_short if too few replicas confirmed it), or if it was not (store_busy,
	// store_full, store_weak: come back after After), KindInternal if a command was refused for what it is, and KindClosed.
	Err error
}

// Condition says what a value has to be: that of a key of its own, or of a field of a hash. Conditions on fields of one hash cost
// least next to each other.
type Condition struct {
	Key    string
	Hash   bool
	Field  string // with Hash
	Absent bool   // there must be none
	Value  string // otherwise

	Len bool // of a hash as a whole: it has N fields, so that with conditions on each of them nothing was added
	N   int
}

// IfValue and IfField return the condition that a value is still what a read returned: nil for none.
func IfValue(key string, was any) Condition { return condition(Condition{Key: key}, was) }

// IfField is IfValue for a field of a hash.
func IfField(key, field string, was any) Condition {
	return condition(Condition{Key: key, Hash: true, Field: field}, was)
}

// IfLen returns the condition that a hash has so many fields; none if there is no such key.
func IfLen(key string, n int) Condition { return Condition{Key: key, Len: true, N: n} }

func condition(c Condition, was any) Condition {
	if v, ok := was.(string); ok {
		c.Value = v
	} else {
		c.Absent = true
	}
	return c
}
