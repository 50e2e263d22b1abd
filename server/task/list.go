package task

import (
	"encoding/binary"
	"time"

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
	// MaxVariables and MaxVariableBytes bound what a list tells of each user: how many values, and their bytes together.
	MaxVariables     = 20
	MaxVariableBytes = 4 << 10
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

// chunkVersion begins a chunk as it is stored.
const chunkVersion = 1

// AppendChunk appends the entries of a chunk as they are stored: a version, how many, then of each the user, how many values, and those; texts with their length before them.
func AppendChunk(dst []byte, entries []Entry) []byte {
	dst = append(dst, chunkVersion)
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

// DecodeChunk reads what AppendChunk wrote. KindInternal, "corrupt_value".
func DecodeChunk(v string) ([]Entry, error) {
	corrupt := push.Errorf(push.KindInternal, "corrupt_value", "a chunk of a list cannot be read")
	if len(v) == 0 || v[0] != chunkVersion {
		return nil, corrupt
	}
	v = v[1:]
	number := func() int {
		n, size := binary.Uvarint([]byte(v[:min(len(v), binary.MaxVarintLen64)]))
		if size <= 0 || n > uint64(len(v)) {
			v = ""
			return -1
		}
		v = v[size:]
		return int(n)
	}
	bad := false
	text := func() (s string) {
		n := number()
		if n < 0 || n > len(v) {
			bad = true
			return ""
		}
		s, v = v[:n], v[n:]
		return s
	}
	count := number()
	if count < 0 || count > ChunkMost {
		return nil, corrupt
	}
	out := make([]Entry, count)
	for i := range out {
		out[i].User = push.UserID(text())
		values := number()
		if values < 0 {
			return nil, corrupt
		}
		for range values {
			out[i].Values = append(out[i].Values, text())
		}
	}
	if bad || v != "" {
		return nil, corrupt
	}
	return out, nil
}
