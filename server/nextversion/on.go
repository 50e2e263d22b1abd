//go:build nextversion

package nextversion

import "bytes"

// Enabled reports whether this is the build of the next version.
const Enabled = true

// Step is what the next version adds to the numbers of versions.
const Step = 1

// Part is what the next version adds to a binary value: bytes with their length before them.
const Part = "\x0badded later"

// Member is what it adds to a JSON object: members with a comma before them.
const Member = `,"added_later":{"a":[1,null,"}"],"b":""}`

// Script is what it adds to what runs in Redis.
const Script = "\n-- added later\n"

// Object returns a JSON object as the next version writes it.
func Object(b []byte) []byte {
	end := bytes.LastIndexByte(b, '}')
	if end < 0 {
		return b
	}
	members := Member
	if end > 0 && b[end-1] == '{' { // nothing stands before them
		members = members[1:]
	}
	out := append(make([]byte, 0, len(b)+len(members)), b[:end]...)
	return append(append(out, members...), b[end:]...)
}
