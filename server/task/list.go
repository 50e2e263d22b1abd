package task

import (
	"encoding/binary"
	"time"

	"carillon/server/nextversion"
	"carillon/server/push"
)

// List is what is known of a list of users, each of them once. Its users lie in chunks by shard, in the order in which they came.
type List struct {
	Product   push.ProductID `json:"product"`
	ID        push.MsgID     `json:"id"`
	Name      string         `json:"name,omitempty"`
	Created   push.MilliTime `json:"created"` // set by the store
	By        Actor          `json:"by,omitzero"`
	Users     int64          `json:"users"`
	Variables []string       `json:"variables,omitempty"` // the names of what is told of each user, in the order of Entry.Values
	Longest   []int          `json:"longest,omitempty"`   // by variable, how many bytes a value has at most, as it is written in JSON
	Shards    int            `json:"shards"`
	Chunks    Progress       `json:"chunks"`         // by shard, how many
	Made      bool           `json:"made,omitempty"` // for a task, out of its audience; not shown among the lists
}

const (
	// ListKept is how long a list is kept after it was made, or used last.
	ListKept = 7 * 24 * time.Hour
	// ChunkMost is how many users a chunk has at most. A chunk is a batch of a task: it is written in one step.
	ChunkMost = 64
	// MaxListUsers is how many users a list has at most.
	MaxListUsers = 1_000_000
	// MaxLists is how many uploaded lists a product has at a time.
	MaxLists = 100
	// MaxVariables and MaxVariableBytes bound what a list tells of each user: how many values, and their bytes together.
	MaxVariables     = 20
	MaxVariableBytes = 4 << 10
	// MaxValues is how many values an entry has at most: of a list that was made for a task, as many as a user has devices.
	MaxValues = 1000
)

// Chunk is a part of one shard's users in a list. Numbers rise by one from 0 on in each shard.
type Chunk struct {
	Shard   push.Shard
	Number  int
	Entries []Entry
}

// Entry is a user in a list, and what is told of the user: in the order of List.Variables, none if there are no variables. Of a list that was made
// for a task it is the devices of the user that are meant, none if all are.
type Entry struct {
	User   push.UserID
	Values []string
}

// CheckChunk returns what is wrong with a chunk. KindInvalid, "bad_chunk".
func CheckChunk(c *Chunk) error {
	bad := func(format string, args ...any) error {
		return push.Errorf(push.KindInvalid, "bad_chunk", format, args...)
	}
	if n := len(c.Entries); n < 1 || n > ChunkMost {
		return bad("a chunk has 1 to %d users", ChunkMost)
	}
	if c.Number < 0 || c.Number > MaxListUsers {
		return bad("a chunk's number is 0 to %d", MaxListUsers)
	}
	for i := range c.Entries {
		if len(c.Entries[i].Values) > MaxValues {
			return bad("of a user at most %d values are told", MaxValues)
		}
	}
	return nil
}

// chunkVersion begins a chunk as it is stored; from version 2 on, what was added since stands behind it, with its length before it (see decision 19).
const chunkVersion = 1 + nextversion.Step

// AppendChunk appends the entries of a chunk as they are stored: a version, how many, then of each the user, how many values, and those; texts with their
// length before them.
func AppendChunk(dst []byte, entries []Entry) []byte {
	dst = append(append(dst, chunkVersion), nextversion.Part...)
	dst = binary.AppendUvarint(dst, uint64(len(entries)))
	for _, e := range entries {
		dst = appendText(dst, string(e.User))
		dst = binary.AppendUvarint(dst, uint64(len(e.Values)))
		for _, v := range e.Values {
			dst = appendText(dst, v)
		}
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// DecodeChunk reads what AppendChunk wrote here, or one version later. What it returns shares memory with v alone. KindInternal, "corrupt_value".
func DecodeChunk(v string) ([]Entry, error) {
	r := chunkReader{rest: v}
	version := r.byte()
	if version < 1 || version > chunkVersion+1 {
		r.bad = true
	}
	if version > 1 {
		r.text() // what was added later
	}
	count := r.number(ChunkMost)
	if r.bad {
		return nil, errChunk()
	}
	out := make([]Entry, count)
	for i := range out {
		out[i].User = push.UserID(r.text())
		for range r.number(MaxValues) {
			out[i].Values = append(out[i].Values, r.text())
		}
	}
	if r.bad || r.rest != "" {
		return nil, errChunk()
	}
	return out, nil
}

func errChunk() error {
	return push.Errorf(push.KindInternal, "corrupt_value", "a chunk of a list cannot be read")
}

// chunkReader takes a chunk apart. Once something is wrong it is bad, and returns nothing more.
type chunkReader struct {
	rest string
	bad  bool
}

func (r *chunkReader) byte() byte {
	if r.rest == "" {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// number reads an unsigned varint in its shortest form, at most most.
func (r *chunkReader) number(most int) int {
	n := 0
	for shift := 0; shift < 35 && !r.bad; shift += 7 {
		b := r.byte()
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			if n > most || b == 0 && shift > 0 {
				break
			}
			return n
		}
	}
	r.bad = true
	return 0
}

func (r *chunkReader) text() string {
	n := r.number(len(r.rest))
	if r.bad || n > len(r.rest) {
		r.bad = true
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}
